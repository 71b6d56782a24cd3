"""Alphas that a file states outside its tensors: diffusers' metadata, PEFT's config, kohya's keys.

A layer's update is scaled by alpha / rank, or by alpha / √rank if it is rank-stabilised
(https://huggingface.co/papers/2312.03732).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from hublora.errors import AdapterError
from hublora.families.registry import COMPONENTS


def stated_config(component: str, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the LoraConfig that a diffusers file states for a component, None without one.

    Raises:
        AdapterError: It does not parse.
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
    prefix = component + "."
    return {
        key.removeprefix(prefix): value
        for key, value in everything.items()
        if key.startswith(prefix)
    }


def stated_alpha(
    component: str,
    module: str,
    rank: int,
    metadata: Mapping[str, str],
    config: Mapping[str, Any] | None,
) -> float:
    """Return the alpha that is stated for a layer; alpha = rank if none is.

    The alpha of a rank-stabilised adapter is turned into the one that gives the same scale as
    alpha / rank. Keys: `lora_alpha` of a LoraConfig, `alpha` of a LoHaConfig or LoKrConfig.

    Raises:
        AdapterError: It is no number, or its pattern is not the name of a layer.
    """
    stated = stated_config(component, metadata)
    if stated is None:
        stated = dict(config or {})
    patterns = stated.get("alpha_pattern")
    own = [
        alpha
        for pattern, alpha in (patterns.items() if isinstance(patterns, dict) else ())
        if _matches(pattern, module)
    ]
    alpha = own[0] if own else stated.get("lora_alpha", stated.get("alpha"))
    if alpha is None:
        return float(rank)
    number = _finite(alpha) if isinstance(alpha, int | float) else None
    if number is None:
        raise AdapterError(
            f"The alpha of the layer {module!r} must be a number, got {alpha!r:.80}."
        )
    return number * math.sqrt(rank) if stated.get("use_rslora") else number


def stated_alphas(
    metadata: Mapping[str, str], config: Mapping[str, Any] | None
) -> tuple[float, ...]:
    """Return all alphas that are stated outside the tensors, smallest first; kohya's are tensors,
    and its metadata repeats the most common one."""
    configs = [stated_config(component, metadata) or {} for component in COMPONENTS]
    if "lora_adapter_metadata" not in metadata:
        configs = [dict(config or {})]
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


def _matches(pattern: str, module: str) -> bool:
    """Tell whether a PEFT pattern names this module: `peft.utils.other.get_pattern_key`'s rule.

    Files are untrusted, so their patterns are never run as regular expressions.
    """
    bare = re.sub(r"\\(.)", r"\1", pattern.removeprefix("^").removesuffix("$"))
    if not re.fullmatch(r"[\w.-]+", bare):
        raise AdapterError(
            f"The file's alpha_pattern {pattern!r} is not the name of a layer.",
            "Save the adapter again with full layer names.",
        )
    return module == bare or (not pattern.startswith("^") and module.endswith("." + bare))
