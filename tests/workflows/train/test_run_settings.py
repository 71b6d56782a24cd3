"""A run folder is all that `hublora train --resume` needs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import hublora
from hublora.errors import Interrupted
from hublora.filesystem import RUN_SETTINGS
from hublora.progress import FileWritten
from tests.entry import Done, hublora_cli

__all__ = ["hublora_cli"]

WEIGHTS = "pytorch_lora_weights.safetensors"
FLAGS = [
    *("--base", "epsilon", "--folder", "images", "--max-train-steps", "4", "--seed", "3"),
    *("--checkpointing-steps", "2", "--num-validation-images", "1", "--validation-prompt", "x"),
]


@pytest.fixture
def stopped(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: object
) -> tuple[Path, str]:
    """A run that was stopped after step 2, of files named by relative paths; and what it said."""
    from hublora.cli.train import train as command
    from hublora.cli.train_flags import given_settings

    def stop(event: object) -> None:
        if isinstance(event, FileWritten) and event.path.name == "checkpoint-2":
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "my runs" / "one"
    given = command.make_context("train", [*FLAGS, "--output-dir", str(run)]).params
    given.pop("resume")
    settings = given_settings(given.pop("config_file"), given.pop("assignments"), given)
    monkeypatch.chdir(bases)
    with pytest.raises(Interrupted) as caught:
        hublora.train(hublora.TrainingConfig.from_settings(settings), callback=stop)
    monkeypatch.chdir(tmp_path)
    return run, str(caught.value.hint)


def test_a_run_goes_on_from_its_folder_alone_in_any_folder(
    stopped: tuple[Path, str],
    hublora_cli: Callable[..., Done],
    bases: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, hint = stopped
    assert hint.startswith("Resume: hublora train --resume '")
    (listed,) = json.loads(hublora_cli("runs", str(tmp_path), "--json").out)
    assert listed["resume"] == hint.removeprefix("Resume: ")
    assert listed["resume"] in hublora_cli("runs", str(tmp_path)).out
    done = hublora_cli(*shlex.split(listed["resume"])[1:])
    assert done.status == 0, done.err
    assert "Resuming from" in done.err
    monkeypatch.chdir(bases)
    whole = hublora_cli("train", *FLAGS, "--output-dir", str(tmp_path / "whole" / "one"))
    assert whole.status == 0, whole.err
    assert (run / WEIGHTS).read_bytes() == (tmp_path / "whole" / "one" / WEIGHTS).read_bytes()


def test_what_is_kept_for_resuming_is_not_published(stopped: tuple[Path, str], bases: Path) -> None:
    from hublora.hub.repo_layout import repo_files

    run, _ = stopped
    kept = run / RUN_SETTINGS
    assert str(bases / "images") in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not [name for name in repo_files(run) if "settings.json" in name]
    state = json.loads((run / "checkpoint-2" / "state.json").read_text())
    assert str(bases) not in json.dumps(state)


def test_what_is_given_wins_over_what_the_run_kept(
    stopped: tuple[Path, str], hublora_cli: Callable[..., Done]
) -> None:
    run, _ = stopped
    for how in (["--resume", str(run / "checkpoint-2")], ["--output-dir", str(run), "--resume"]):
        done = hublora_cli("train", *how, "--rank", "8")
        assert done.status == 1
        assert "adapter.rank (was 4, is 8)" in done.err


def test_a_folder_without_settings_says_what_to_give(
    hublora_cli: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "old run").mkdir()
    done = hublora_cli("train", "--resume", str(tmp_path / "old run"))
    assert done.status == 1
    assert "has no settings of a training" in done.err
    assert f"--output-dir '{tmp_path / 'old run'}' --resume" in done.err
