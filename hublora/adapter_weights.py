"""Weights of adapters: one number, a range over the denoising steps, or one per block.

    weight := range | [range ","] block ":" range ("," block ":" range)*
    range  := number [".." number]       from the first step to the last
    block  := "text" | "down" | "mid" | "up" | "down.1" | … | the name of a layer, or its beginning

Blocks that are not named have the weight without a block, 1.0 by default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from hublora.errors import ConfigError
from hublora.families.registry import block_path
from hublora.refs import MAX_WEIGHT

# How several adapters are combined (`hublora.generation.lora.schedule`).
CompositionMode = Literal["sum", "switch", "composite"]

_EXAMPLE = "0.8, 0.2..0.9 or 1,mid:0,up:0.2..0.9"
_NUMBER = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(?P<start>{_NUMBER})(?:\.\.(?P<end>{_NUMBER}))?\Z")
_BLOCK = re.compile(r"[a-z][\w.]*\Z")


@dataclass(frozen=True)
class Range:
    """A weight that changes linearly over the denoising steps.

    Attributes:
        start: Weight at the first step, -1000 to 1000.
        end: Weight at the last step, -1000 to 1000; equal to `start` for a constant.
    """

    start: float
    end: float

    def at(self, progress: float) -> float:
        """Return the weight at `progress`, the share of steps done, 0 to 1."""
        return self.start + (self.end - self.start) * progress

    def __str__(self) -> str:
        if self.start == self.end:
            return _shortest(self.start)
        return f"{_shortest(self.start)}..{_shortest(self.end)}"


@dataclass(frozen=True)
class Weight:
    """Weight of one adapter.

    Attributes:
        rest: Weight of the blocks that are not named.
        blocks: Pairs of a block, as in the grammar above, and its weight.
    """

    rest: Range
    blocks: tuple[tuple[str, Range], ...] = ()

    @classmethod
    def of(cls, number: float) -> Weight:
        """Return the weight that is `number` at every step and block."""
        return cls(Range(number, number))

    @classmethod
    def parse(cls, text: str) -> Weight:
        """Parse the grammar above.

        Raises:
            ConfigError: `text` does not parse, or a number is beyond -1000 to 1000.
        """
        rest, blocks = Range(1.0, 1.0), {}
        for index, part in enumerate(text.replace(" ", "").split(",")):
            block, colon, value = part.rpartition(":")
            if not colon and index == 0:
                rest = _parse_range(value, text)
            elif _BLOCK.match(block) and block not in blocks:
                blocks[block] = _parse_range(value, text)
            else:
                raise _wrong(text)
        return cls(rest, tuple(blocks.items()))

    def __str__(self) -> str:
        named = [f"{block}:{value}" for block, value in self.blocks]
        return ",".join([str(self.rest), *named])

    @property
    def number(self) -> float | None:
        """The weight if it is the same at every step and block; else None."""
        return self.rest.start if not self.blocks and not self.moves else None

    @property
    def mean(self) -> float:
        """Mean over the steps of the blocks that are not named."""
        return (self.rest.start + self.rest.end) / 2

    @property
    def moves(self) -> bool:
        """Whether the weight changes over the steps."""
        return any(one.start != one.end for one in self._ranges)

    @property
    def positive(self) -> bool:
        """Whether the weight is above 0 at any step of any block."""
        return any(max(one.start, one.end) > 0 for one in self._ranges)

    @property
    def acts(self) -> bool:
        """Whether the weight is not 0 at some step of some block."""
        return any(one.start or one.end for one in self._ranges)

    def times(self, factor: float) -> Weight:
        """Return the weight multiplied by a number."""
        return replace(
            self,
            rest=_times(self.rest, factor),
            blocks=tuple((block, _times(one, factor)) for block, one in self.blocks),
        )

    def for_layer(self, component: str, module: str) -> Range:
        """Return the weight of a layer, that of the longest block that contains it.

        Args:
            component: Component of the pipeline, e.g. "unet".
            module: Name of the layer inside the component.
        """
        matching = [one for one in self.blocks if in_block(one[0], component, module)]
        return max(matching, key=lambda one: len(one[0]))[1] if matching else self.rest

    @property
    def _ranges(self) -> list[Range]:
        return [self.rest, *(one for _, one in self.blocks)]


def in_block(block: str, component: str, module: str) -> bool:
    """Tell whether a layer is in a block, e.g. "down.1" for "down_blocks.1.attentions.0.…"."""
    if component.startswith("text_encoder"):
        return block in ("text", component)
    path = block_path(block)
    return module == path or module.startswith(f"{path}.")


def _shortest(number: float) -> str:
    """Return the shortest text that is parsed as the same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _times(one: Range, factor: float) -> Range:
    return Range(one.start * factor, one.end * factor)


def _parse_range(text: str, whole: str) -> Range:
    found = _RANGE.match(text)
    if not found:
        raise _wrong(whole)
    start = float(found["start"])
    end = float(found["end"]) if found["end"] else start
    if not (abs(start) <= MAX_WEIGHT and abs(end) <= MAX_WEIGHT):
        raise _wrong(whole)
    return Range(start, end)


def _wrong(text: str) -> ConfigError:
    return ConfigError(f"{text!r} is not a weight.", f"Write it like {_EXAMPLE}.")
