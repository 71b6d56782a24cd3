"""A demo that was stopped goes on with its training."""

from __future__ import annotations

from pathlib import Path

from hublora.demo.tour import _choose_run


def test_a_stopped_training_goes_on_and_a_finished_one_is_left(tmp_path: Path) -> None:
    assert _choose_run(tmp_path, "runs/x") == ("runs/x", False)
    (tmp_path / "runs/x/checkpoint-5").mkdir(parents=True)
    assert _choose_run(tmp_path, "runs/x") == ("runs/x", True)
    (tmp_path / "runs/x/README.md").touch()
    assert _choose_run(tmp_path, "runs/x") == ("runs/x-2", False)
    (tmp_path / "runs/x-2/checkpoint-9").mkdir(parents=True)
    assert _choose_run(tmp_path, "runs/x") == ("runs/x-2", True)
