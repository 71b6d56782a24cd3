"""Turns pydantic's errors into sentences that name the setting that is meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from hublora.errors import ConfigError, HubloraError
from hublora.training.config.foreign_names import own_names


def explain(error: ValidationError, names: Sequence[str]) -> HubloraError:
    """Return hublora's error for what pydantic refuses.

    Args:
        error: Pydantic's error.
        names: Dotted keys of all settings.
    """
    problems = error.errors()
    # An unknown key is often the misspelt one that is missing elsewhere: it comes first.
    unknown = (one for one in problems if one["type"] == "extra_forbidden")
    first = next(unknown, problems[0])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, HubloraError):  # a rule or a parser says itself what to do
        return cause
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        if renamed := _named_elsewhere(problems):
            return renamed
        section, _, last = key.rpartition(".")
        near = (
            [name for name in names if _initials(name) == last and name.startswith(section)]
            or [name for name in names if name.split(".")[-1] == last]
            or difflib.get_close_matches(key, names, 1, 0.5)
        )
        hint = f"Did you mean {near[0]}?" if near else "List them: hublora train --list-settings"
        return ConfigError(f"Unknown setting {key!r}.", hint)
    if first["type"] == "string_unicode":
        return ConfigError(not_text(key, first["input"]))
    if first["type"] == "missing":
        return ConfigError(f"The setting {key!r} is missing.", _MISSING.get(key))
    return ConfigError(f"The setting {key!r} cannot be {first['input']!r}: {first['msg']}.")


def _named_elsewhere(problems: Sequence[Any]) -> HubloraError | None:
    """Return the error for keys of other tools, with all of their names here; None without any."""
    keys: list[str] = []
    for one in problems:
        if one["type"] == "extra_forbidden":
            key = ".".join(str(part) for part in one["loc"])
            inside = one["input"]
            keys += [f"{key}.{name}" for name in inside] if isinstance(inside, dict) else []
            keys += [] if isinstance(inside, dict) else [key]
    own = own_names(keys)
    if not own:
        return None
    if len(keys) == 1:
        return ConfigError(f"Unknown setting {keys[0]!r}.", f"Did you mean {own[keys[0]]}?")
    listed = ", ".join(f"{key} is {name}" for key, name in own.items())
    unknown = [key for key in keys if key not in own]
    rest = f" Unknown here: {', '.join(unknown)}." if unknown else ""
    return ConfigError(
        f"These settings have other names here: {listed}.{rest}",
        "List all settings: hublora train --list-settings",
    )


def not_text(key: str, value: object) -> str:
    """Return the message for a string that no tokenizer or file could hold."""
    return f"The setting {key!r} is not valid UTF-8: {value!r}."


def _initials(name: str) -> str:
    """Return what people call a setting for short: "lr" for optimizer.learning_rate."""
    return "".join(word[0] for word in name.split(".")[-1].split("_"))


_MISSING = {
    "base": "Name the base with --base, e.g. --base stable-diffusion-v1-5/stable-diffusion-v1-5.",
    "base.model": "Name a diffusers pipeline: --base owner/name, or the setting base.model.",
}
