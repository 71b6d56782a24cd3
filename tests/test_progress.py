"""Events of a workflow as lines of a log."""

from __future__ import annotations

import pytest

from hublora import progress
from hublora.progress import LineReporter, Progress, StepProgress


def test_lines_say_how_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines: list[str] = []
    report = LineReporter(lines.append, lines.append)
    for step, seconds in ((1, 0), (2, 10), (11, 90), (700, 10), (1000, 6000)):
        clock[0] += seconds
        report(StepProgress(step, 1000, 0.5, 1e-4))
    report(Progress("Encoding images", 4, 4))
    assert lines == [
        "Training: 1/1000  loss 0.5000  lr 1.0e-04",
        "Training: 11/1000  loss 0.5000  lr 1.0e-04  2 h 44 min left",
        "Training: 1000/1000  loss 0.5000  lr 1.0e-04",
        "Encoding images: 4/4",
    ]
