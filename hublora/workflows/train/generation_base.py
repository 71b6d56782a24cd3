"""The base model that images are generated with, where the adapter is trained on another one.

A model that was distilled to a few steps forgets them when it is trained. Its undistilled original
has the same layers: an adapter that was trained on that acts on the distilled one, too, which is
the one that people use. Previews and the gallery are therefore generated with that, and of its
files only those are downloaded and loaded that differ from the original's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError, HubloraError
from hublora.families.registry import FAMILIES, generation_base_of
from hublora.hub.download import download
from hublora.hub.pipeline_files import pipeline_files
from hublora.hub.resolve import file_ids
from hublora.memory.offload import parse_blocks
from hublora.progress import Callback, Note
from hublora.refs import BaseRef
from hublora.resolution.base import Base, ResolvedBase, download_base, resolve_base
from hublora.resolution.base_access import check_access
from hublora.resolution.base_contents import remembered_sha256
from hublora.resolution.base_layers import read_base_layers

if TYPE_CHECKING:
    from hublora.adapters.adapter import Adapter
    from hublora.memory.block_swap import BlockSwap
    from hublora.training.config.sections import BaseSettings
    from hublora.training.config.training_config import TrainingConfig

# Entries of a component's config that do not change what it computes.
_WITHOUT_EFFECT = ("_name_or_path", "_diffusers_version", "transformers_version")
_CONFIG = "config.json"


@dataclass(frozen=True)
class GenerationBase:
    """The base model that images are generated with, downloaded.

    Attributes:
        base: The base; components that are `shared` are missing in its folder.
        shared: Components that are the same as those of the base that is trained on.
    """

    base: Base
    shared: frozenset[str]


def resolve_generation_base(
    config: TrainingConfig, trained_on: ResolvedBase, callback: Callback
) -> ResolvedBase | None:
    """Resolve the base that images are generated with and check by headers that the adapter will
    fit it; None where that is the base that is trained on.

    Raises:
        HubloraError: The one that the settings name does not exist or has other layers. If the one
            known to the family cannot be had, that is a note, and None is returned.
    """
    from hublora.training.methods import method_of

    name, stated = trained_on.ref.name, config.base.generation
    known = None if method_of(config).trains_tokens else generation_base_of(name)
    chosen = stated or known
    if chosen is None or chosen in (name, config.base.model):
        return None
    try:
        found = resolve_base(BaseRef.parse(chosen, config.base.generation_revision))
        check_access(found)
        _check_pair(config, trained_on, found)
    except HubloraError as error:
        if stated is not None:
            raise
        callback(
            Note(
                f"Images are generated with {name}: {chosen}, which its adapters are used on, "
                f"cannot be had. {' '.join(filter(None, (error.message, error.hint)))}",
                warning=True,
            )
        )
        return None
    return found


def _check_pair(config: TrainingConfig, trained_on: ResolvedBase, other: ResolvedBase) -> None:
    """Check that a base has all layers that are trained on another one, by headers alone.

    Raises:
        ConfigError: It has not.
    """
    from hublora.training.target_layers import find_ranks, trained_components

    names = trained_on.ref.name, other.ref.name
    one, two = read_base_layers(trained_on, ()), read_base_layers(other, ())
    family = FAMILIES.get(one.family or "")
    if family is None:  # downloading says so
        return
    if one.family != two.family:
        raise _wrong_pair(*names, f"it is of the family {two.family}, not of {one.family}")
    components = trained_components(config, family)
    one, two = (read_base_layers(base, components) for base in (trained_on, other))
    for component in components:
        shapes, others = one.shapes.get(component, {}), two.shapes.get(component, {})
        trained = find_ranks(config.adapter, component, list(shapes), family)
        wrong = [layer for layer in trained if others.get(layer) != shapes[layer]]
        if wrong:
            first = wrong[0]
            raise _wrong_pair(
                *names,
                f"of the {len(trained)} trained layers of the {component} {len(wrong)} have "
                f"another shape there or do not exist, such as {first!r} with "
                f"{_shape(others, first)} in place of {_shape(shapes, first)}",
            )


def _wrong_pair(trained_on: str, other: str, reason: str) -> ConfigError:
    known = generation_base_of(trained_on)
    return ConfigError(
        f"An adapter of {trained_on} cannot be used on the generation base {other}: {reason}.",
        f"Use --generation-base {known}." if known else "Leave --generation-base out.",
    )


def _shape(shapes: Mapping[str, tuple[int, ...]], layer: str) -> str:
    return "×".join(map(str, shapes[layer])) if layer in shapes else "none"


def download_generation_base(
    resolved: ResolvedBase, trained_on: Base, shares_text_encoders: bool, callback: Callback
) -> GenerationBase:
    """Download what a base has other than the one that is trained on.

    Args:
        resolved: The base that images are generated with.
        trained_on: The base that is trained on, downloaded.
        shares_text_encoders: Whether equal text encoders are shared: not if they are trained.
        callback: Called with each event (`hublora.progress.Event`).
    """
    shared = _equal_components(resolved, trained_on, shares_text_encoders)
    base = download_base(resolved, callback, without=shared)
    callback(Note(f"Images are generated with {base.label}"))
    return GenerationBase(base, frozenset(shared))


def _equal_components(
    resolved: ResolvedBase, trained_on: Base, shares_text_encoders: bool
) -> list[str]:
    family = trained_on.family
    names = [family.vae]
    if shares_text_encoders:
        tokenizers = [name.replace("text_encoder", "tokenizer") for name in family.text_encoders]
        names += [*family.text_encoders, *tokenizers]
    ids = [_ids(resolved.ref, resolved.commit), _ids(_ref_of(trained_on), trained_on.commit)]
    equal = []
    for name in names:
        one, other = (_files(each, name) for each in ids)
        differing = {file for file in {*one, *other} if one.get(file) != other.get(file)}
        config = f"{name}/{_CONFIG}"
        alike = one and other and differing <= {config, f"{name}/generation_config.json"}
        if alike and (config not in differing or _same_config(resolved, trained_on, config)):
            equal.append(name)
    return equal


def _ref_of(base: Base) -> BaseRef:
    is_repo = base.commit is not None and base.sha256 is None
    return BaseRef.parse(f"hf://{base.name}") if is_repo else BaseRef(None, base.folder)


def _ids(ref: BaseRef, commit: str | None) -> Mapping[str, str]:
    """Return path -> what tells the content of a base's file from others of the same kind."""
    if ref.repo_id is not None:
        return file_ids(ref.repo_id, str(commit))
    assert ref.folder is not None, "one of both is set"
    paths = [path for path in ref.folder.glob("*/*") if path.is_file()]
    return {path.relative_to(ref.folder).as_posix(): remembered_sha256(path) for path in paths}


def _files(ids: Mapping[str, str], component: str) -> dict[str, str]:
    names = pipeline_files(ids, {component})
    return {name: ids[name] for name in names if name.startswith(f"{component}/")}


def _same_config(resolved: ResolvedBase, trained_on: Base, path: str) -> bool:
    """Tell whether two configs differ only in what changes nothing."""
    if resolved.ref.repo_id is not None:
        other = download(resolved.ref.repo_id, str(resolved.commit), path)
    else:
        assert resolved.ref.folder is not None, "one of both is set"
        other = resolved.ref.folder / path
    configs = [_config(other), _config(trained_on.folder / path)]
    return None not in configs and configs[0] == configs[1]


def _config(path: Path) -> dict[str, Any] | None:
    try:
        stated = json.loads(path.read_bytes())
        return {key: value for key, value in stated.items() if key not in _WITHOUT_EFFECT}
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


class GenerationPipeline:
    """The pipeline that images are generated with while an adapter is trained on another base.

    Args:
        base: Base of the pipeline.
        pipe: The pipeline, without adapters.
    """

    def __init__(self, base: Base, pipe: Any, offload: str | None = None) -> None:
        from hublora.generation.lora.manager import LoraManager
        from hublora.generation.lora.schedule import AdapterSchedule

        self.base, self.pipe = base, pipe
        self._offload = offload
        self._swap: BlockSwap | None = None
        self._manager = LoraManager(pipe)
        self._schedule = AdapterSchedule(self._manager, getattr(pipe, base.family.denoiser))

    def move(self, device: Any) -> None:
        """Move the pipeline; of a denoiser whose blocks are swapped, what is not swapped."""
        from torch import nn

        denoiser = getattr(self.pipe, self.base.family.denoiser)
        for model in self.pipe.components.values():
            if isinstance(model, nn.Module) and model is not denoiser:
                model.to(device)
        if self._offload is None:
            denoiser.to(device)
        elif self._swap is None:
            from hublora.memory.block_swap import BlockSwap

            self._swap = BlockSwap(denoiser, parse_blocks(self._offload), device)
        else:
            self._swap.move(device)

    def activate(self, adapter: Adapter | None) -> None:
        """Activate an adapter, or none, in place of the one before.

        Raises:
            AdapterError: It does not fit the base.
        """
        from hublora.adapter_weights import Weight

        label = "The trained adapter"
        fitted = [] if adapter is None else [self._manager.fit(adapter, label, self.base.label)]
        self._schedule.activate(fitted, [Weight.of(1.0)] * len(fitted))


def load_generation_pipeline(
    generation: GenerationBase, pipe: Any, dtype: Any, memory: BaseSettings
) -> GenerationPipeline:
    """Return the pipeline of the generation base on the CPU, its shared components those of `pipe`.

    Args:
        generation: The base, downloaded.
        pipe: Pipeline of the base that is trained on.
        dtype: Dtype of the weights.
        memory: Settings of the trained base, whose quantisation and offloading it has too.
    """
    shared = {name: getattr(pipe, name, None) for name in generation.shared}
    own = generation.base.load(dtype, memory.quantize, **shared)
    return GenerationPipeline(generation.base, own, memory.offload)
