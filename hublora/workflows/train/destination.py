"""What a training's settings leave to where it runs: repo id, run folder and commits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hublora.hub.resolve import resolve_adapter
from hublora.hub.token_owner import token_owner
from hublora.refs import AdapterRef, is_repo
from hublora.resolution.base import Base
from hublora.training.run_folder import is_unused

if TYPE_CHECKING:
    from hublora.data import Source
    from hublora.training.config.training_config import TrainingConfig


def resolve_destination(config: TrainingConfig, resume: str | None) -> TrainingConfig:
    """Return the settings with the full id of the repo that is pushed to, and the run's folder.

    Raises:
        HubError: The repo's owner is the user who is logged in, and nobody is.
    """
    run_name = _run_name(config)
    chosen: dict[str, object] = {
        "output_dir": config.output_dir or default_folder(run_name, resume)
    }
    name = config.hub.model_id
    if (config.hub.push or config.checkpoint.to_hub) and "/" not in (name or ""):
        # A bare name means one's own namespace, as in the diffusers scripts.
        name = name or (config.output_dir.name if config.output_dir else run_name)
        chosen["hub.model_id"] = f"{token_owner().name}/{name}"
    return config.updated(chosen)


def pin_revisions(
    config: TrainingConfig, base: Base, source: Source, generation: Base | None = None
) -> TrainingConfig:
    """Return the settings with bases, dataset and other adapters at their commits, so that a
    resumed run uses the same.

    Args:
        config: Settings of the training.
        base: Base that is trained on.
        source: Images and captions.
        generation: Base that images are generated with, if it is another one.
    """
    generated_with = {}
    if generation is not None:
        named = generation.hub_id or config.base.generation
        generated_with = {
            "base.generation": named,
            "base.generation_revision": generation.commit,
        }
    return config.updated(
        {
            "base.revision": base.commit,
            "base.components": base.published_components or config.base.components,
            **generated_with,
            "data.revision": source.revision,
            "adapter.start_from": _pinned(config.adapter.start_from),
            "adapter.assistant": _pinned(config.adapter.assistant),
        }
    )


def _pinned(ref: AdapterRef | None) -> AdapterRef | None:
    """Return an adapter's ref at its commit; a file or a URL stays as it is."""
    return resolve_adapter(ref).ref if ref is not None and ref.kind == "repo" else ref


def _run_name(config: TrainingConfig) -> str:
    if config.hub.model_id:
        return config.hub.model_id.split("/")[-1]
    data = config.data
    archive = Path((data.archive or "").partition("?")[0]).stem
    folder = data.folder.expanduser().resolve().name if data.folder else ""  # "." has no name
    return Path(data.dataset or folder or archive or "adapter").name + "-lora"


def default_folder(name: str, resume: str | None) -> Path:
    """Return a new folder below ./runs; with `resume`, the newest one that holds a training.

    A folder of a training that failed before its first step counts as new.
    """
    first = candidate = Path("runs") / name
    taken: list[Path] = []
    free: list[Path] = []
    while candidate.exists():
        (free if is_unused(candidate) else taken).append(candidate)
        candidate = first.with_name(f"{first.name}-{len(taken) + len(free) + 1}")
    if resume is not None and not is_repo(resume) and taken:
        return taken[-1]
    return [*free, candidate][0]
