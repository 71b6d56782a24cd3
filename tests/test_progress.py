"""Events of a workflow as lines of a log."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path

import pytest

from hublora import progress
from hublora.progress import (
    FileWritten,
    LineReporter,
    Note,
    Progress,
    StepProgress,
    default_callback,
)


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


def test_without_a_callback_events_are_logged_under_hublora(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "hublora"):
        default_callback(Note("a note"))
        default_callback(Note("act on it", warning=True))
        default_callback(FileWritten("card", Path("README.md")))
        default_callback(Progress("Generating", 1, 2))
    assert [(one.name, one.levelname, one.getMessage()) for one in caplog.records] == [
        ("hublora", "INFO", "a note"),
        ("hublora", "WARNING", "act on it"),
        ("hublora", "INFO", "Wrote the card: README.md"),
        ("hublora", "DEBUG", "Generating: 1/2 "),
    ]


def test_a_notebook_gets_bars_from_every_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ZMQInteractiveShell:
        """What IPython's kernels run in."""

    kernel = types.SimpleNamespace(get_ipython=lambda: ZMQInteractiveShell())
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setenv("TQDM_POSITION", "-1")
    assert progress.report_on_stderr() is default_callback
    for done in (1, 2, 4):
        default_callback(Progress("Generating", done, 4))
    default_callback(StepProgress(1, 1, 0.25, 1e-4))
    said = capsys.readouterr().err
    assert "Generating: 100%" in said
    assert "4/4" in said
    assert "loss 0.2500" in said
    assert not progress._bars
