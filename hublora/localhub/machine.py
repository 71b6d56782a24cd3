"""When not the request is at fault, but a full disk or a limit of the machine."""

from __future__ import annotations

import errno
import sqlite3
import tempfile
from pathlib import Path

import pygit2

from .problems import Refusal

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_PROBE_BYTES = 1 << 20


def lacking(problem: Exception, folder: Path) -> Refusal | None:
    """Return the refusal for a problem that comes from the machine, or None for any other.

    Args:
        problem: Error that the system raised.
        folder: Folder of the Hub's data.
    """
    if not isinstance(problem, OSError | sqlite3.Error | pygit2.GitError):
        return None
    number = getattr(problem, "errno", None) or _probe(folder)
    if number in _FULL:
        return Refusal(507, "The disk of this Hub is full: nothing of this was kept.")
    if number in _TOO_MANY_FILES:
        message = "This Hub has too many files open: try again in a moment."
        return Refusal(503, message, {"Retry-After": "5"})
    return None


def _probe(folder: Path) -> int | None:
    """Return the error that a write meets now: libgit2 and SQLite do not tell theirs."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as problem:
        return problem.errno
    return None
