"""A training that will take long says so once, from the time of its own steps."""

from __future__ import annotations

from hublora.workflows.train.long_run import LongRun


def test_a_long_training_is_told_once_from_its_measured_steps() -> None:
    long_run = LongRun(total=140_000)
    assert long_run.note(1, 60.0) is None, "the first step warms up"
    assert long_run.note(6, 64.5) is None, "too little is measured"
    note = long_run.note(21, 78.0)
    assert note is not None
    said = "The remaining 139,979 steps take about 34 h 59 min (0.9 s a step)."
    assert note.text.startswith(said), "18 seconds for 20 steps"
    assert long_run.note(41, 96.0) is None


def test_a_short_training_is_not() -> None:
    long_run = LongRun(total=1000)
    assert all(long_run.note(step, 2.0 * step) is None for step in range(1, 1001))


def test_one_that_becomes_slow_is() -> None:
    long_run = LongRun(total=4000)
    assert long_run.note(1, 0.0) is None
    assert long_run.note(101, 20.0) is None
    assert long_run.note(201, 1020.0) is not None
