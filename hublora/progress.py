"""What a workflow tells while it works; the command line draws it, a library may ignore it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hublora.quoting import visible

_WORTH_TELLING = 2_000_000  # bytes


@dataclass(frozen=True)
class Progress:
    """Long work goes on: `done` of `total` units of `name`, e.g. "Encoding images"."""

    name: str
    done: int
    total: int
    unit: str = ""


@dataclass(frozen=True)
class Note:
    """Something worth a line in the log."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class StepProgress:
    """One optimizer step was done.

    Attributes:
        step: Counted from 1.
        total: Steps of the whole training.
        loss: Mean loss since the last one told.
        learning_rate: Learning rate of the step: the adapter's, if there is one.
        token_embedding_lr: The words' learning rate where they learn beside an adapter.
    """

    step: int
    total: int
    loss: float
    learning_rate: float
    token_embedding_lr: float | None = None

    @property
    def facts(self) -> str:
        """What a line or a bar says of it beside its number."""
        told = [f"loss {self.loss:.4f}"]
        if self.token_embedding_lr is None or self.learning_rate > 0:
            told.append(f"lr {self.learning_rate:.1e}")
        if self.token_embedding_lr is not None:
            told.append(f"lr of the words {self.token_embedding_lr:.1e}")
        return "  ".join(told)


@dataclass(frozen=True)
class FileWritten:
    """A file or folder that a person may want to open."""

    what: str
    path: Path


Event = Progress | Note | StepProgress | FileWritten
Callback = Callable[[Event], None]


def no_callback(event: Event) -> None:
    """The callback of those who do not want to know."""


def downloading(callback: Callback) -> Callable[[int, int], None]:
    """Return what tells the callback of bytes that come in; what is quickly here goes untold."""

    def tell(done: int, total: int) -> None:
        if total >= _WORTH_TELLING:
            callback(Progress("Downloading", done // 10**6, total // 10**6, "MB"))

    return tell


_EVERY = 15.0  # seconds between two lines about the same work

Say = Callable[[str], None]


class LineReporter:
    """A callback that says things in lines, and of work that goes on one now and then.

    Args:
        note: Says a line.
        warning: Says what should not be missed.
    """

    def __init__(self, note: Say, warning: Say) -> None:
        self._note, self._warning = note, warning
        self._told: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            (self._warning if event.warning else self._note)(event.text)
        elif isinstance(event, FileWritten):
            self._note(f"Wrote the {event.what}: {event.path}")
        elif isinstance(event, Progress):
            unit = f" {event.unit}" if event.unit else ""
            self._advance(event.name, event.done, event.total, unit)
        elif isinstance(event, StepProgress):
            self._advance("Training", event.step, event.total, f"  {event.facts}")

    def _advance(self, name: str, done: int, total: int, told: str) -> None:
        now = time.monotonic()
        last = self._told.get(name)
        if last is None or done == total or now - last > _EVERY:
            self._told[name] = now
            self._note(f"{name}: {done}/{total}{told}")


def report_on_stderr() -> LineReporter:
    """Return a callback that writes to stderr, as the command line does into a log."""
    return LineReporter(_print, lambda text: _print(f"Warning: {text}"))


def _print(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
