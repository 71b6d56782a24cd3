"""Effective defaults: the value of every setting that follows other settings unless it is given.

`resolve_defaults` runs once, when a config is made; afterwards a config is only read. Defaults that
follow nothing stand at their fields (`hublora.training.config.sections`); what follows the device,
the base or the images is decided where those are opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from pydantic import BaseModel

from hublora.training.config.presets import PRESETS

DEFAULT_STEPS = 1000
LEARNING_RATE = 1e-4
_TOKEN_LEARNING_RATE = 5e-4  # of textual inversion, where no adapter is trained
_PROSE_BEFORE_SUBJECT = re.compile(
    r"^(an? |the )?(\w+ )?(photo|photograph|image|picture|drawing|painting|portrait|illustration)"
    r" of (an? |the )?",
    re.IGNORECASE,
)
_PIVOTAL_RATIO = 5  # learning rate of token embeddings over that of the adapter

Settings = Mapping[str, Any]  # dotted key -> value, of which some may be missing


def resolve_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with the preset under them and every dependent default filled in.

    Args:
        given: Section -> setting -> value, or section -> its model; values are not checked yet.
    """
    tree = _plain(given)
    name = tree.get("preset")
    if isinstance(name, str) and name in PRESETS:
        tree = _overlay(_applicable(PRESETS[name], tree), tree)
    for key, default in DEPENDENT_DEFAULTS.items():
        section, _, setting = key.partition(".")
        values = tree.get(section, {})
        if isinstance(values, dict) and values.get(setting) in (None, []):
            value = default(_dotted(tree))
            if value is not None:
                tree[section] = {**values, setting: value}
    return tree


def without_dependent_defaults(settings: Settings) -> dict[str, Any]:
    """Return settings, under dotted keys, without those that are what would be filled in anyway.

    So a recorded training follows its settings again when another one of them is replaced: with
    another rank, alpha is that rank.
    """
    return {
        key: value
        for key, value in settings.items()
        if key not in DEPENDENT_DEFAULTS or DEPENDENT_DEFAULTS[key](settings) != value
    }


def _learning_rate(settings: Settings) -> float:
    if settings.get("optimizer.name") == "prodigy":
        return 1.0  # a factor on the rate that it estimates
    return _TOKEN_LEARNING_RATE if _method(settings) == "textual-inversion" else LEARNING_RATE


def _token_learning_rate(settings: Settings) -> float | None:
    """Return the learning rate of token embeddings where an adapter is trained beside them."""
    adapter = settings.get("optimizer.learning_rate")
    if _method(settings) != "pivotal" or not _is_number(adapter):
        return None
    return None if settings.get("optimizer.name") == "prodigy" else _PIVOTAL_RATIO * adapter


def _schedule(settings: Settings) -> str:
    return "constant" if settings.get("optimizer.name") == "schedule-free" else "cosine"


def _steps(settings: Settings) -> int | None:
    return DEFAULT_STEPS if settings.get("schedule.num_train_epochs") is None else None


def _alpha(settings: Settings) -> float | None:
    rank = settings.get("adapter.rank", 4)
    trained = _method(settings) != "textual-inversion"
    return float(rank) if trained and _is_number(rank) else None


def _trigger_words(settings: Settings) -> list[str] | None:
    """Return the placeholder tokens, or the subject of the instance prompt: "sks dog" of "a photo
    of sks dog"."""
    method, prompt = _method(settings), settings.get("dreambooth.instance_prompt")
    if method in ("textual-inversion", "pivotal"):
        placeholders = settings.get("tokens.placeholders")
        return list(placeholders) if isinstance(placeholders, list | tuple) else None
    if method == "dreambooth" and isinstance(prompt, str):
        subject = _PROSE_BEFORE_SUBJECT.sub("", prompt).strip()
        return [subject] if subject else None
    return None


def _method(settings: Settings) -> Any:
    return settings.get("method", "text-to-image")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# Dotted key -> its default as a function of the other settings; None leaves it to its field. In
# this order, so that a function sees what those before it have filled in.
DEPENDENT_DEFAULTS: Mapping[str, Callable[[Settings], Any]] = {
    "optimizer.learning_rate": _learning_rate,
    "tokens.learning_rate": _token_learning_rate,
    "schedule.name": _schedule,
    "schedule.max_train_steps": _steps,
    "adapter.alpha": _alpha,
    "adapter.trigger_words": _trigger_words,
    "data.seed": lambda settings: settings.get("seed", 0),
}


def _plain(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with sections as dicts of what was set in them."""
    plain: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, BaseModel):
            value = {name: getattr(value, name) for name in value.model_fields_set}
        plain[key] = _plain(value) if isinstance(value, Mapping) else value
    return plain


def _applicable(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset without the adapter's settings where no adapter is trained."""
    without = {"adapter"} if given.get("method") == "textual-inversion" else set()
    return {section: values for section, values in preset.items() if section not in without}


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[key] = _overlay(under, value)
        else:
            merged[key] = value
    return merged


def _dotted(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{setting}": one for setting, one in value.items()}
        else:
            flat[key] = value
    return flat
