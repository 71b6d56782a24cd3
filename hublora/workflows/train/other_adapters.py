"""Other adapters of a training: the one whose weights are the initial ones, and the assistant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hublora.families.registry import known_assistants
from hublora.progress import Callback, Note, no_callback
from hublora.refs import AdapterRef
from hublora.resolution.base import Base, ResolvedBase
from hublora.resolution.choose_base import check_adapters_fit

if TYPE_CHECKING:
    from hublora.adapters.adapter import LowRank
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.session import Session


def with_known_assistant(config: TrainingConfig) -> TrainingConfig:
    """Return the settings with the file of a known assistant that is named by its repo alone."""
    ref = config.adapter.assistant
    if ref is None or ref.kind != "repo" or ref.path is not None:
        return config
    known = (AdapterRef.parse(one) for one in known_assistants())
    path = next((one.path for one in known if one.location == ref.location), None)
    return config.updated({"adapter.assistant": replace(ref, path=path)})


def check_other_adapters(
    config: TrainingConfig, base: ResolvedBase, callback: Callback = no_callback
) -> None:
    """Check that the initial adapter and the assistant fit a base before it is downloaded.

    Raises:
        AdapterError: One does not fit.
    """
    from hublora.resolution.adapter import open_adapter

    refs = [ref for ref in (config.adapter.start_from, config.adapter.assistant) if ref is not None]
    named = [(ref.public, open_adapter(ref, callback)) for ref in refs]
    check_adapters_fit(named, base)


def initial_updates(
    config: TrainingConfig, base: Base, pipe: Any, callback: Callback = no_callback
) -> Mapping[str, Mapping[str, LowRank]] | None:
    """Return component -> layer of the base -> update of `adapter.start_from`; None without it."""
    ref = config.adapter.start_from
    return None if ref is None else _updates_of(ref, base, pipe, callback)


def attach_assistant(session: Session, base: Base, callback: Callback = no_callback) -> None:
    """Let the adapter of `adapter.assistant`, if there is one, act in a session from now on."""
    from hublora.training.accelerator import weight_dtype
    from hublora.training.assistant import Assistant

    ref = session.config.adapter.assistant
    if ref is None:
        return
    updates = _updates_of(ref, base, session.pipe, callback)
    accelerator = session.accelerator
    session.assistant = Assistant(
        session.pipe, updates, weight_dtype(accelerator), accelerator.device
    )
    callback(Note(f"Assistant while training: {ref.public}"))


def _updates_of(
    ref: AdapterRef, base: Base, pipe: Any, callback: Callback
) -> Mapping[str, Mapping[str, LowRank]]:
    """Return component -> layer of the base -> update of an adapter, times its weight."""
    from hublora.generation.lora.manager import fit_to_base
    from hublora.resolution.adapter import open_adapter

    adapter = open_adapter(ref, callback)
    label = adapter.facts.source or str(ref)
    fitted = fit_to_base(pipe, adapter, label, base.name)
    return {
        component: {name: replace(one, up=one.up * ref.weight) for name, one in layers.items()}
        for component, layers in fitted.items()
    }
