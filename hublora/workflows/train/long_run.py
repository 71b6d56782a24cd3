"""Tells once that a training will take long, from the steps that it has done."""

from __future__ import annotations

from hublora.cards.format import format_count
from hublora.progress import Note, format_duration

LONG = 3600.0  # seconds that are told without being asked for
_MEASURED = 10.0  # seconds of steps from which the rest is estimated


class LongRun:
    """Estimates how long the steps of a training take, and says so once if that is long.

    Args:
        total: Last step of the training.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._first: tuple[int, float] | None = None
        self._told = False

    def note(self, step: int, seconds: float) -> Note | None:
        """Return the sentence the first time that the rest is estimated to be long, else None.

        Args:
            step: Step that is done, the device included.
            seconds: Time on any clock that does not count previews.
        """
        if self._first is None:  # the steps before it warmed up
            self._first = step, seconds
            return None
        first, started = self._first
        if self._told or step == first or seconds - started < _MEASURED:
            return None
        each = (seconds - started) / (step - first)
        left = self._total - step
        if left * each < LONG:
            return None
        self._told = True
        return Note(
            f"The remaining {format_count(left, 'step')} take about {format_duration(left * each)} "
            f"({each:.3g} s a step). Ctrl-C saves a checkpoint, and --dry-run measures other "
            "settings."
        )
