"""`hublora train --list-settings`: every setting with its values, default and flag."""

from __future__ import annotations

import types
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from hublora.cli.output import out
from hublora.flag_names import TRAINING_FLAGS
from hublora.training.config.resolve import DEPENDENT_DEFAULTS
from hublora.training.config.training_config import TrainingConfig

_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
_LIMITS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


@dataclass(frozen=True)
class ListedSetting:
    """One setting of a training.

    Attributes:
        key: Dotted key, for `--set` and config files.
        values: Type, choices and range, as text.
        default: Default as text; None without one.
        flag: Flag of `hublora train`; None where only `--set` reaches it.
        about: Description, one sentence or more.
    """

    key: str
    values: str
    default: str | None
    flag: str | None
    about: str


def show_settings() -> None:
    """Print every setting by its section."""
    settings = list_settings()
    lines, section = [], None
    for one in settings:
        if (own := one.key.rpartition(".")[0]) != section:
            section = own
            lines += ["", click.style(section.capitalize() or "Run", bold=True)]
        facts = [one.values, *([f"default: {one.default}"] if one.default else [])]
        lines.append(f"  {one.key}  [{'; '.join(facts)}]{f'  {one.flag}' if one.flag else ''}")
        lines.append(click.wrap_text(one.about, 96, "      ", "      "))
    out.result(
        "\n".join(lines[1:]), [asdict(one) for one in settings], [one.key for one in settings]
    )


def list_settings() -> list[ListedSetting]:
    """Return every setting, those without a section first."""
    flags = {key: flag for flag, key in TRAINING_FLAGS.items()}
    listed = [
        ListedSetting(
            key,
            _values(field),
            "follows other settings" if key in DEPENDENT_DEFAULTS else _default(field),
            flags.get(key),
            field.description or "",
        )
        for key, field in _fields(TrainingConfig)
    ]
    return sorted(listed, key=lambda one: "." in one.key)


def _fields(model: type[BaseModel], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _fields(kind, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


def _values(field: Any) -> str:
    limits = [
        f"{word} {getattr(rule, name)}"
        for rule in field.metadata
        for name, word in _LIMITS.items()
        if getattr(rule, name, None) is not None
    ]
    return " ".join([_type(field.annotation), *limits])


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (list, tuple, set, dict):
        inner = [one for one in arguments if one is not Ellipsis]
        return f"list of {_type(inner[0])}" if origin is not dict else "mapping"
    return _WORDS.get(annotation, "text")


def _default(field: Any) -> str | None:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or default is None or default == [] or default == "":
        return None
    if isinstance(default, bool):
        return str(default).lower()
    return ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
