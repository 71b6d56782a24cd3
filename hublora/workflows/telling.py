"""Says what a workflow tells in plain lines: what a log has, and who calls `hublora.train`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from hublora.quoting import visible
from hublora.workflows.progress import Happening, Note, Stage, Trained, Wrote

_EVERY = 15.0  # seconds between two lines about the same work

Say = Callable[[str], None]


class Lines:
    """An observer that says things in lines, and of work that goes on one now and then.

    Args:
        note: Says a line.
        warning: Says what should not be missed.
    """

    def __init__(self, note: Say, warning: Say) -> None:
        self._note, self._warning = note, warning
        self._told: dict[str, float] = {}

    def __call__(self, happening: Happening) -> None:
        if isinstance(happening, Note):
            (self._warning if happening.warning else self._note)(happening.text)
        elif isinstance(happening, Wrote):
            self._note(f"Wrote the {happening.what}: {happening.path}")
        elif isinstance(happening, Stage):
            unit = f" {happening.unit}" if happening.unit else ""
            self._advance(happening.name, happening.done, happening.total, unit)
        elif isinstance(happening, Trained):
            self._advance("Training", happening.step, happening.total, f"  {happening.facts}")

    def _advance(self, name: str, done: int, total: int, told: str) -> None:
        now = time.monotonic()
        last = self._told.get(name)
        if last is None or done == total or now - last > _EVERY:
            self._told[name] = now
            self._note(f"{name}: {done}/{total}{told}")


def on_stderr() -> Lines:
    """Return an observer that writes to stderr, as the command line does into a log."""
    return Lines(_print, lambda text: _print(f"Warning: {text}"))


def _print(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
