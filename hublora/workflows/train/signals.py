"""Ctrl-C, SIGTERM, SIGHUP and a closed stderr before, in and after the steps of a training."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hublora.errors import Interrupted
from hublora.progress import Callback, Event

_CLOSED = (errno.EPIPE, errno.EIO)  # a pipe without a reader, a terminal that is gone


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
        Interrupted: Ctrl-C, SIGTERM or SIGHUP.
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


def _ends() -> list[signal.Signals]:
    """Return the signals that end a job: SIGTERM of a scheduler, and SIGHUP of a terminal that is
    closed, unless it is ignored (nohup)."""
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hang_up]


@contextmanager
def ends_stop() -> Iterator[None]:
    """Handle the signals that end a job as Ctrl-C; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled(_ends(), stop):
        yield


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Turn Ctrl-C and the signals that end a job into an event that is checked between two steps.

    A second Ctrl-C stops at once; a terminal that is closed may well send SIGHUP twice. Signals can
    only be caught in the main thread; elsewhere the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    with _handled([signal.SIGINT, *_ends()], ask):
        yield stop


@contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class ClosableCallback:
    """A callback that calls another one until what that prints to is closed.

    Args:
        callback: Callback that may print.

    Attributes:
        is_closed: Whether that was found closed, and later events are dropped.
    """

    def __init__(self, callback: Callback) -> None:
        self._callback, self.is_closed = callback, False

    def __call__(self, event: Event) -> None:
        if self.is_closed:
            return
        try:
            self._callback(event)
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            self.is_closed = True
