"""Renders the events of a workflow: progress bars at a terminal, lines in a log."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Any

from hublora.cli.output import out
from hublora.progress import Event, FileWritten, LineReporter, Note, Progress, StepProgress
from hublora.quoting import visible


class ProgressReport:
    """A callback for workflows, used as a context manager around one.

    Args:
        names_files: Whether files are named when they are written; not where they are the result.
    """

    def __init__(self, names_files: bool = True) -> None:
        self._names_files = names_files
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._lines = LineReporter(out.note, out.warning)

    def __enter__(self) -> ProgressReport:
        _quieten()
        if out.shows_progress:
            self._bars = _make_bars()
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            with suppress(OSError):  # of a terminal that is gone
                self._bars.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, FileWritten) and not self._names_files:
            return
        if self._bars is None:
            self._lines(event)
        elif isinstance(event, Note):
            self._say(event.text, "yellow" if event.warning else "dim")
        elif isinstance(event, FileWritten):
            self._say(f"Wrote the {event.what}: {event.path}", "dim")
        elif isinstance(event, Progress):
            self._advance(event.name, event.done, event.total, event.unit)
        elif isinstance(event, StepProgress):
            self._advance("Training", event.step, event.total, event.facts)

    def _say(self, text: str, style: str) -> None:
        from rich.text import Text

        self._bars.console.print(Text(visible(text), style=style))

    def _advance(self, name: str, done: int, total: int, detail: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, detail="")
        self._bars.update(self._tasks[name], completed=done, total=total, detail=detail)


def _quieten() -> None:
    """Turn off the progress bars and warnings of the libraries: workflows report what matters."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when imported
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def _make_bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("[dim]{task.fields[detail]}"),
        console=Console(stderr=True),
    )
