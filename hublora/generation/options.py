"""Keyword options of the public calls: typed dictionaries, whose names an editor completes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from hublora.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from hublora.adapter_weights import CompositionMode
    from hublora.generation.prompt_placeholders import TriggerMode
    from hublora.memory.quantization import Quantization
    from hublora.progress import Callback


class LoadOptions(TypedDict, total=False):
    """How adapters are loaded onto a base."""

    base: str | None
    base_revision: str | None
    components: str | None
    compose: CompositionMode | None
    weights: Mapping[str, str | float] | None
    commercial: bool
    device: str | None
    dtype: torch.dtype | str | None
    quantize: Quantization | None
    offload: str | None
    tiled_vae: bool
    cache_bytes: int
    max_rank: int


class UseOptions(TypedDict, total=False):
    """Keywords of `use`."""

    compose: CompositionMode | None
    weights: Mapping[str, str | float] | None
    commercial: bool
    callback: Callback


class SamplingOptions(TypedDict, total=False):
    """How images are sampled: fields of `Sampling`; None is the base's own."""

    negative_prompt: str | None
    seed: int
    num_inference_steps: int | None
    steps: int | None
    guidance_scale: float | None
    width: int | None
    height: int | None
    scheduler: str | None
    timestep_spacing: str | None
    shift: float | None


class InputOptions(TypedDict, total=False):
    """Inputs besides the prompt: fields of `Inputs`."""

    image: Path | str | None
    strength: float | None
    mask: Path | str | None
    controlnet: str | None
    control_image: Path | str | None
    ip_adapter: str | None
    ip_adapter_image: Path | str | None
    ip_adapter_scale: float | None
    reference: Sequence[Path | str] | Path | str


class RunOptions(LoadOptions, SamplingOptions, InputOptions, total=False):
    """Keywords of `run`."""

    trigger: TriggerMode


class BatchOptions(LoadOptions, SamplingOptions, total=False):
    """Keywords of `run_batch`."""

    trigger: TriggerMode
    num_images: int
    grid: bool
    reference: Sequence[Path | str] | Path | str


class GalleryOptions(SamplingOptions, total=False):
    """Images of a card."""

    gallery: bool
    prompts: Sequence[str]


class ComposeOptions(LoadOptions, GalleryOptions, total=False):
    """Keywords of `compose`."""


class MergeOptions(GalleryOptions, total=False):
    """Keywords of `merge`."""

    private: bool
    base: str | None
    device: str | None


class ReplayOptions(TypedDict, total=False):
    """Keywords of `replay`: files that are not where the image was generated."""

    base: str | None
    components: str | None
    device: str | None
    image: Path | str | None
    mask: Path | str | None
    control_image: Path | str | None
    ip_adapter: str | None
    ip_adapter_image: Path | str | None
    reference: Sequence[Path | str] | Path | str


class CaptionOptions(TypedDict, total=False):
    """Keywords of `caption`: its model and where the result is pushed to."""

    revision: str | None
    batch_size: int
    device: str | None
    private: bool


def check_options(given: Mapping[str, Any], kind: type, call: Callable[..., Any]) -> None:
    """Check that every keyword is known.

    Args:
        given: Keywords that `call` does not name itself.
        kind: A typed dictionary of this file.
        call: The public function.

    Raises:
        ConfigError: One is unknown; the nearest known one is named.
    """
    explicit = [
        one.name for one in signature(call).parameters.values() if one.kind is one.KEYWORD_ONLY
    ]
    known = sorted({*_names(kind), *explicit})
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            raise ConfigError(
                f"Unknown keyword {name!r} of {call.__name__}.",
                f"Did you mean {nearest[0]}?" if nearest else f"Choose from {', '.join(known)}.",
            )


def pick(given: Mapping[str, Any], kind: type) -> Any:
    """Return those of the keywords that a typed dictionary has."""
    names = _names(kind)
    return {name: value for name, value in given.items() if name in names}


def pick_sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Sampling` among the keywords, without those that are None.

    Raises:
        ConfigError: The number of steps is given by both of its names.
    """
    found = {name: one for name, one in pick(given, SamplingOptions).items() if one is not None}
    if "steps" in found:
        if "num_inference_steps" in found:
            raise ConfigError("steps and num_inference_steps are the same.", "Give one of them.")
        found["num_inference_steps"] = found.pop("steps")
    return found


def _names(kind: type) -> frozenset[str]:
    names: frozenset[str] = getattr(kind, "__optional_keys__", frozenset())
    return names
