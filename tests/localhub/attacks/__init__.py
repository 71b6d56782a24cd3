"""What somebody might try, as a table: `test_attacks` carries it out, docs/hub-attacks.md shows it.

Each attack makes requests and returns how each was answered: a status, or `cut` when the server
closed the connection. Answers that are allowed to succeed say so in `accepts`; none of them may
carry a secret.
"""

from __future__ import annotations

from collections.abc import Iterator

from .access import large_files, strangers, tokens
from .bodies import bodies
from .browsers import browsers
from .git import git
from .paths import paths
from .world import REFUSED, SECRET, Attack, World

__all__ = ["REFUSED", "SECRET", "Attack", "World", "table"]


def table() -> Iterator[Attack]:
    """Yield every attack."""
    yield from paths()
    yield from strangers()
    yield from large_files()
    yield from tokens()
    yield from bodies()
    yield from git()
    yield from browsers()
