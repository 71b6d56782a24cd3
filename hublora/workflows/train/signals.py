"""Ctrl-C and SIGTERM before, in and after the steps of a training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hublora.errors import Interrupted


def interrupted(checkpoint: Path, elsewhere: str | None = None) -> Interrupted:
    """Return the exception of a training that was stopped and saved in `checkpoint`.

    Args:
        checkpoint: Folder of the checkpoint, in the run folder.
        elsewhere: Command that resumes on another machine; None if nothing was uploaded.
    """
    from hublora.training.run_folder import resume_command

    command = f"\nOr on another machine: {elsewhere}" if elsewhere else ""
    return Interrupted(
        f"Stopped; everything so far is in {checkpoint}.",
        f"Resume: {resume_command(checkpoint.parent)}{command}",
        checkpoint,
    )


@contextmanager
def before_the_steps() -> Iterator[None]:
    """Turn Ctrl-C before the first step into `Interrupted`.

    Raises:
        Interrupted: Ctrl-C or SIGTERM.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "Stopped before the first step: nothing was trained now; downloads and latents stay "
            "cached.",
            "The same command continues from there.",
            None,
        ) from None


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """Handle SIGTERM, by which schedulers end a job, as Ctrl-C; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event that is checked between two steps.

    A second Ctrl-C stops at once. Signals can only be caught in the main thread; elsewhere the
    event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
