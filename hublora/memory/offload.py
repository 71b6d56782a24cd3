"""Names of the ways to keep weights off the device until they are needed."""

from __future__ import annotations

import re

from hublora.errors import ConfigError

_BLOCKS = re.compile(r"blocks(?::([1-9][0-9]{0,3}))?")
COMPONENTS = ("model", "sequential")


def parse_blocks(offload: str) -> int | None:
    """Return the number of blocks in "blocks:8"; None for "blocks", which means all.

    Raises:
        ConfigError: It is neither.
    """
    found = _BLOCKS.fullmatch(offload)
    if found is None:
        raise ConfigError(
            f"--offload must be blocks or blocks:N with N from 1, got {offload!r}.",
            "Write blocks for all of them, or blocks:8 for eight.",
        )
    return int(found[1]) if found[1] else None


def check_offload_name(offload: str) -> str:
    """Return the name of a way to offload while images are generated.

    Raises:
        ConfigError: It is none of "model", "sequential", "blocks" and "blocks:N".
    """
    if offload in COMPONENTS or _BLOCKS.fullmatch(offload):
        return offload
    raise ConfigError(
        f"Unknown offload {offload!r}.", "Choose from model, sequential, blocks and blocks:N."
    )
