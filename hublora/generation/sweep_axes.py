"""Axes of a sheet: the setting that varies over its rows or columns, and its values.

axis    := name "=" values
name    := "seed" | "weight" | "weight.2" | "steps" | "guidance" | "scheduler"
values  := number ".." number ":" count      evenly spaced, both ends included
         | value ("," value)*
         | count                              for seed: that many consecutive seeds
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hublora.errors import ConfigError
from hublora.generation.sample import Sampling

_EXAMPLE = "seed=4, weight=0..1:5 or steps=10,20,30"
_SPACED = re.compile(r"(?P<start>[+-]?[\d.]+)\.\.(?P<end>[+-]?[\d.]+):(?P<count>\d{1,3})\Z")
_MOST = 1000

# Name -> field of Sampling and its type.
_FIELDS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "seed": ("seed", int),
    "steps": ("num_inference_steps", int),
    "guidance": ("guidance_scale", float),
    "scheduler": ("scheduler", str),
}


@dataclass(frozen=True)
class Axis:
    """A setting and its values.

    Attributes:
        name: Setting, one of the names of the grammar above.
        values: Values of the setting, as text, in order.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, first_seed: int = 0) -> Axis:
        """Parse the grammar above.

        Args:
            text: An axis, e.g. "weight=0..1:5".
            first_seed: First value of "seed=COUNT".

        Raises:
            ConfigError: `text` does not parse.
        """
        name, equals, values = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is not an axis.", f"Write it like {_EXAMPLE}.")
        return cls.of(name, _values(name, values, first_seed), text)

    @classmethod
    def of(cls, name: str, values: Sequence[str], text: str | None = None) -> Axis:
        """Return the axis of a setting with these values.

        Args:
            name: Setting, one of the names of the grammar above.
            values: Values of the setting, as text, in order.
            text: The axis as it was typed, for messages.

        Raises:
            ConfigError: The name or a value is none of the grammar.
        """
        text = text or f"{name}={','.join(values)}"
        if not (name in _FIELDS or re.fullmatch(r"weight(\.[1-9]\d?)?", name)):
            raise ConfigError(f"{text!r} is not an axis.", f"Write it like {_EXAMPLE}.")
        axis = cls(name, tuple(values))
        for value in axis.values:
            axis._check(value, text)
        return axis

    @property
    def adapter(self) -> int | None:
        """Index of the adapter whose weight varies, from 0; None for other settings."""
        if not self.name.startswith("weight"):
            return None
        return int(self.name.partition(".")[2] or 1) - 1

    def label(self, value: str, titles: Sequence[str] = ()) -> str:
        """Return the label of the row or column with a value.

        Args:
            value: Value of the setting.
            titles: Names of the adapters, of which a weight is one's.
        """
        if self.name == "scheduler":
            return value
        if self.adapter is None or self.adapter >= len(titles):
            return f"{self.name} {value}"
        short = [title.rpartition("/")[2] for title in titles]
        name = short[self.adapter]
        return f"{name if short.count(name) == 1 else titles[self.adapter]} {value}"

    def apply(self, plan: Sampling, value: str) -> Sampling:
        """Return the sampling settings with a value of this axis; unchanged for a weight."""
        if self.name not in _FIELDS:
            return plan
        field, kind = _FIELDS[self.name]
        changed: dict[str, Any] = {field: kind(value)}
        return replace(plan, **changed)

    def _check(self, value: str, text: str) -> None:
        kind = _FIELDS[self.name][1] if self.name in _FIELDS else float
        try:
            kind(value)
        except ValueError as error:
            raise ConfigError(
                f"{value!r} in {text!r} is not a {self.name}.", f"Write it like {_EXAMPLE}."
            ) from error


def _values(name: str, text: str, first_seed: int) -> list[str]:
    spaced = _SPACED.match(text)
    if spaced:
        count = int(spaced["count"])
        try:
            start, end = float(spaced["start"]), float(spaced["end"])
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is not a range of numbers.", f"Write it like {_EXAMPLE}."
            ) from error
        step = (end - start) / max(count - 1, 1)
        return [f"{round(start + step * index, 6):g}" for index in range(count)]
    if name == "seed" and text.isdecimal() and int(text) <= _MOST:
        return [str(first_seed + index) for index in range(int(text))]
    return [value.strip() for value in text.split(",")]
