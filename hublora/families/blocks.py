"""Names of a denoiser's blocks, as weights and reports write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """The blocks of one architecture's denoiser.

    Attributes:
        numbered: Short name -> name of the list that holds such blocks, e.g. "down" ->
            "down_blocks"; one block of it is written "down.1".
        single: Short name -> name of a block that there is once, e.g. "mid" -> "mid_block".
    """

    numbered: Mapping[str, str]
    single: Mapping[str, str]

    def path(self, block: str) -> str | None:
        """Return the beginning of the names of a block's layers, None if there is no such block.

        Args:
            block: e.g. "down", "down.1" or "mid".
        """
        name, dot, number = block.partition(".")
        known = {**self.numbered, **self.single}
        return f"{known[name]}{dot}{number}" if name in known else None

    def find(self, layer: str) -> tuple[str, str] | None:
        """Return the block that a layer is in, as short name and beginning of its layers' names:
        ("down.1", "down_blocks.1"). None for a layer outside of blocks."""
        first, _, rest = layer.partition(".")
        number = rest.partition(".")[0]
        for short, name in self.numbered.items():
            if first == name and number.isdecimal():
                return f"{short}.{number}", f"{name}.{number}"
        return next(((short, name) for short, name in self.single.items() if first == name), None)
