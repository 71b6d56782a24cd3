"""Alphas that a file states outside its tensors: diffusers' metadata, PEFT's config, kohya's keys.

A layer's update is scaled by alpha / rank, or by alpha / √rank if it is rank-stabilised
(https://huggingface.co/papers/2312.03732).
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hublora.errors import AdapterError
from hublora.families.registry import COMPONENTS

# Initialisations of PEFT that change the base model's weights too; its own conversion on saving
# (`path_initial_model_for_weight_conversion`) writes `true` instead.
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")


class LayerPatterns:
    """Values by PEFT pattern, looked up by layer as `peft.utils.other.get_pattern_key` does.

    A pattern with "^" is the name of a layer, one without it may also be the end of one. Files are
    untrusted, so patterns are never run as regular expressions, and a look-up costs no more for
    many patterns than for few.
    """

    def __init__(self, name: str, patterns: object) -> None:
        self._exact: dict[str, tuple[int, Any]] = {}
        self._endings: dict[str, tuple[int, Any]] = {}
        for number, (pattern, value) in enumerate(
            patterns.items() if isinstance(patterns, dict) else ()
        ):
            bare = re.sub(r"\\(.)", r"\1", pattern.removeprefix("^").removesuffix("$"))
            if not re.fullmatch(r"[\w.-]+", bare):
                raise AdapterError(
                    f"The file's {name} {pattern!r} is not the name of a layer.",
                    "Save the adapter again with full layer names.",
                )
            known = self._exact if pattern.startswith("^") else self._endings
            known.setdefault(bare, (number, value))

    def find(self, layer: str) -> Any:
        """Return the value of the first pattern that matches a layer, None if none does."""
        parts = layer.split(".")
        endings = (".".join(parts[start:]) for start in range(len(parts)))
        found = [self._endings[ending] for ending in endings if ending in self._endings]
        if layer in self._exact:
            found.append(self._exact[layer])
        return min(found, key=lambda one: one[0])[1] if found else None


class StatedSettings:
    """The settings that a file's metadata or a PEFT folder states for one component.

    Args:
        settings: Entries of a LoraConfig, LoHaConfig or LoKrConfig; empty if none are stated.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        kind = settings.get("init_lora_weights")
        if isinstance(kind, str) and kind.lower().startswith(_CHANGE_THE_BASE):
            raise AdapterError(
                f"The adapter was saved with init_lora_weights {kind!r}, which changes the base "
                "model's weights too; its file alone is not the whole update.",
                "Save it with PEFT's path_initial_model_for_weight_conversion.",
            )

    @functools.cached_property
    def _alphas(self) -> LayerPatterns:
        return LayerPatterns("alpha_pattern", self._settings.get("alpha_pattern"))

    @functools.cached_property
    def _ranks(self) -> LayerPatterns:
        return LayerPatterns("rank_pattern", self._settings.get("rank_pattern"))

    def alpha(self, layer: str, rank: int) -> float:
        """Return the alpha of a layer; `rank` if none is stated.

        The alpha of a rank-stabilised adapter is turned into the one that gives the same scale as
        alpha / rank. Keys: `lora_alpha` of a LoraConfig, `alpha` of a LoHaConfig or LoKrConfig.

        Raises:
            AdapterError: It is no number, or its pattern is not the name of a layer.
        """
        alpha = self._alphas.find(layer)
        if alpha is None:
            alpha = self._settings.get("lora_alpha", self._settings.get("alpha"))
        if alpha is None:
            return float(rank)
        number = _finite(alpha) if isinstance(alpha, int | float) else None
        if number is None:
            raise AdapterError(
                f"The alpha of the layer {layer!r} must be a finite number, got {alpha!r:.80}."
            )
        return number * math.sqrt(rank) if self._settings.get("use_rslora") else number

    def rank(self, layer: str) -> int | None:
        """Return the rank of a layer, None unless a positive integer is stated."""
        rank = self._ranks.find(layer)
        if rank is None:
            rank = self._settings.get("r")
        return rank if isinstance(rank, int) and rank > 0 else None


def stated_settings(
    components: Iterable[str], metadata: Mapping[str, str], config: Mapping[str, Any] | None
) -> dict[str, StatedSettings]:
    """Return the settings that are stated for each component.

    Those in diffusers' metadata take precedence. `save_lora_adapter` of a model writes them without
    the component's prefix.

    Args:
        components: Components of the file.
        metadata: `__metadata__` of the file.
        config: `adapter_config.json` of a PEFT folder; None without one.

    Raises:
        AdapterError: The metadata is not valid, or the adapter changes the base model's weights.
    """
    everything = _diffusers_metadata(metadata)
    if everything is None:
        return {component: StatedSettings(config or {}) for component in components}
    return {
        component: StatedSettings(_of_component(component, everything)) for component in components
    }


def _diffusers_metadata(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the JSON object that diffusers writes, None without one.

    Raises:
        AdapterError: It is not valid.
    """
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return None
    try:
        everything = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError("The file's lora_adapter_metadata is not valid JSON.") from error
    if not isinstance(everything, dict):
        raise AdapterError(
            f"The file's lora_adapter_metadata must be a JSON object, got "
            f"{type(everything).__name__}."
        )
    return everything


def _of_component(component: str, everything: Mapping[str, Any]) -> Mapping[str, Any]:
    prefixes = tuple(f"{one}." for one in COMPONENTS)
    if not any(key.startswith(prefixes) for key in everything):
        return everything  # of a model that was saved alone
    prefix = component + "."
    return {
        key.removeprefix(prefix): value
        for key, value in everything.items()
        if key.startswith(prefix)
    }


def stated_alphas(
    metadata: Mapping[str, str], config: Mapping[str, Any] | None
) -> tuple[float, ...]:
    """Return all alphas that are stated outside the tensors, smallest first; kohya's are tensors,
    and its metadata repeats the most common one."""
    everything = _diffusers_metadata(metadata)
    configs = [config or {}]
    if everything is not None:
        configs = [_of_component(component, everything) for component in COMPONENTS]
    found: list[Any] = [metadata.get("ss_network_alpha")]
    for one in configs:
        patterns = one.get("alpha_pattern")
        found += [one.get("lora_alpha", one.get("alpha"))]
        found += patterns.values() if isinstance(patterns, dict) else []
    return tuple(sorted({number for value in found if (number := _finite(value)) is not None}))


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
