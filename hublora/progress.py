"""Events that a workflow reports while it works, and callbacks that print them as lines."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.flag_names import in_python
from hublora.quoting import visible

_MIN_DOWNLOAD = 2_000_000  # bytes


@dataclass(frozen=True)
class Progress:
    """Progress of long work.

    Attributes:
        name: The work, e.g. "Encoding images".
        done: Units done, from 0 to `total`.
        total: Units in all.
        unit: Name of a unit, e.g. "MB"; may be empty.
    """

    name: str
    done: int
    total: int
    unit: str = ""


@dataclass(frozen=True)
class Note:
    """A line for the log.

    Attributes:
        text: One sentence.
        warning: Whether the person should act on it.
    """

    text: str
    warning: bool = False


@dataclass(frozen=True)
class StepProgress:
    """One optimizer step is done.

    Attributes:
        step: Counted from 1.
        total: Optimizer steps of the whole training.
        loss: Mean loss since the last event of this kind.
        learning_rate: Learning rate of the step: the adapter's, else the token embeddings'.
        token_embedding_lr: Learning rate of token embeddings that are trained beside an adapter;
            None without both.
    """

    step: int
    total: int
    loss: float
    learning_rate: float
    token_embedding_lr: float | None = None

    @property
    def facts(self) -> str:
        """Loss and learning rates, for a line or a progress bar."""
        facts = [f"loss {self.loss:.4f}"]
        if self.token_embedding_lr is None or self.learning_rate > 0:
            facts.append(f"lr {self.learning_rate:.1e}")
        if self.token_embedding_lr is not None:
            facts.append(f"lr of the token embeddings {self.token_embedding_lr:.1e}")
        return "  ".join(facts)


@dataclass(frozen=True)
class FileWritten:
    """A file or folder was written that a person may want to open.

    Attributes:
        what: Kind of the file, e.g. "adapter".
        path: Path of the file.
    """

    what: str
    path: Path


Event = Progress | Note | StepProgress | FileWritten
Callback = Callable[[Event], None]


def no_callback(event: Event) -> None:
    """Ignore the event: the callback of silent runs."""


_logger = logging.getLogger("hublora")
_bars: dict[tuple[int, str], Any] = {}  # of this thread and work


def default_callback(event: Event) -> None:
    """Log the event under the logger `hublora`, and show progress as a bar in a notebook.

    Warnings have the level WARNING, other notes and written files INFO, and progress DEBUG.
    """
    if isinstance(event, Note):
        _logger.log(
            logging.WARNING if event.warning else logging.INFO, visible(in_python(event.text))
        )
    elif isinstance(event, FileWritten):
        _logger.info("Wrote the %s: %s", event.what, visible(str(event.path)))
    elif isinstance(event, StepProgress):
        _logger.debug("Training: %d/%d  %s", event.step, event.total, event.facts)
        _advance_bar("Training", event.step, event.total, event.facts)
    else:
        _logger.debug("%s: %d/%d %s", event.name, event.done, event.total, event.unit)
        _advance_bar(event.name, event.done, event.total, event.unit)


def in_notebook() -> bool:
    """Return whether this runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _advance_bar(name: str, done: int, total: int, detail: str) -> None:
    """Show progress as one of tqdm's bars in a notebook, from its first event to its last."""
    if not in_notebook():
        return
    key = threading.get_ident(), name
    bar = _bars.get(key)
    if bar is None or bar.total != total:
        from tqdm.auto import tqdm

        if bar is not None:
            bar.close()
        bar = _bars[key] = tqdm(total=total, desc=name)
    bar.set_postfix_str(detail, refresh=False)
    bar.update(done - bar.n)
    if done >= total:
        bar.close()
        del _bars[key]


def downloading(callback: Callback) -> Callable[[int, int], None]:
    """Return a progress function (bytes done, bytes in all) that reports downloads of over 2 MB."""

    def report(done: int, total: int) -> None:
        if total >= _MIN_DOWNLOAD:
            callback(Progress("Downloading", done // 10**6, total // 10**6, "MB"))

    return report


_INTERVAL = 15.0  # seconds between two lines about the same work

Print = Callable[[str], None]


class LineReporter:
    """A callback that prints events as lines, and progress every 15 seconds.

    Args:
        note: Prints a line.
        warning: Prints a line that asks for action.
    """

    def __init__(self, note: Print, warning: Print) -> None:
        self._note, self._warning = note, warning
        self._reported: dict[str, float] = {}
        self._begun: dict[str, tuple[float, int]] = {}  # time and units done at the first event

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            (self._warning if event.warning else self._note)(in_python(event.text))
        elif isinstance(event, FileWritten):
            self._note(f"Wrote the {event.what}: {event.path}")
        elif isinstance(event, Progress):
            unit = f" {event.unit}" if event.unit else ""
            self._advance(event.name, event.done, event.total, unit)
        elif isinstance(event, StepProgress):
            self._advance("Training", event.step, event.total, f"  {event.facts}")

    def _advance(self, name: str, done: int, total: int, facts: str) -> None:
        now = time.monotonic()
        last = self._reported.get(name)
        if last is None:
            self._begun[name] = now, done
        if last is None or done == total or now - last > _INTERVAL:
            self._reported[name] = now
            begun, before = self._begun[name]
            left = ""
            if before < done < total:
                left = f"  {format_duration((now - begun) * (total - done) / (done - before))} left"
            self._note(f"{name}: {done}/{total}{facts}{left}")


def format_duration(seconds: float) -> str:
    """Return a time in its two largest units, e.g. "1 h 20 min"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def report_on_stderr() -> Callback:
    """Return a callback that writes to stderr, as the command line does into a log; in a notebook
    it shows bars."""
    if in_notebook():
        return default_callback
    return LineReporter(_print, lambda text: _print(f"Warning: {text}"))


def _print(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
