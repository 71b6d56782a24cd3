"""A real training that is killed or stopped, and goes on, ends in the bytes of one that was not."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

import hublora
from hublora.errors import ConfigError, Interrupted
from hublora.progress import Progress
from tests.processes import Forked
from tests.processes import hublora as begin

WEIGHTS = "pytorch_lora_weights.safetensors"
FLAGS = [
    *("--base", "bases/epsilon", "--dataset", "bases/images", "--max-train-steps", "14"),
    *("--checkpointing-steps", "2", "--num-validation-images", "1", "--validation-prompt", "x"),
    *("--learning-rate", "1e-2", "--output-dir", "run"),
    *("--set", "validation.num_inference_steps=1"),
]
HARD = [
    *("--train-text-encoder", "--set", "adapter.dropout=0.2", "--method", "pivotal"),
    *("--placeholder-token", "<x>", "--set", "tokens.first_steps=6", "--with-prior-preservation"),
    *("--class-prompt", "a cat", "--num-class-images", "2"),
]
pytestmark = pytest.mark.timeout(900)  # several whole processes, on machines that may be busy


def train_here(folder: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch, **how) -> Path:
    """Train in this process, as `hublora train` would in `folder`; return the run's folder."""
    from hublora.cli.train import train as command
    from hublora.cli.train_flags import given_settings

    given = command.make_context("train", list(flags)).params
    given.pop("resume")
    settings = given_settings(given.pop("config_file"), given.pop("assignments"), given)
    config = hublora.TrainingConfig.from_settings(settings)
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    hublora.train(config, **how)
    return folder / "run"


def wait_for_step(process: Forked, run: Path, step: int) -> None:
    """Wait until a checkpoint of `step` or later is there."""
    process.wait_until(lambda: list(run.glob("checkpoint-*")) and _last_step(run) >= step)


def _last_step(run: Path) -> int:
    return max(int(path.name.split("-")[1]) for path in run.glob("checkpoint-*"))


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_bytes(
    libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*FLAGS, *HARD]
    whole = train_here(tmp_path / "whole", flags, monkeypatch)
    here = tmp_path / "killed"
    here.mkdir()
    run, rng = here / "run", random.Random(0)
    for least in (2, 6):  # while the token embedding is learned alone, and after it
        process = begin(["train", *flags, "--resume"], here)
        wait_for_step(process, run, least)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        said = "starting a new training" if least == 2 else "Resuming from"
        assert said in process.stderr
        assert not (run / WEIGHTS).exists()
    done = begin(["train", *flags, "--resume"], here).finish()
    assert done.returncode == 0, done.stderr
    assert "Resuming from" in done.stderr
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    history = "training/history.jsonl"
    assert (run / history).read_bytes() == (whole / history).read_bytes()


def test_ctrl_c_saves_and_says_how_to_go_on_and_nobody_else_writes_meanwhile(
    libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_here(tmp_path / "whole", FLAGS, monkeypatch)
    here = tmp_path / "stopped"
    here.mkdir()
    process = begin(["train", *FLAGS], here)
    wait_for_step(process, here / "run", 4)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(ConfigError, match=r"Another training is writing to .*run"):
        train_here(here, FLAGS, monkeypatch, resume="latest")
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    stderr = process.finish(120).stderr
    assert process.returncode == 130, stderr
    assert "hublora train --resume run" in stderr
    assert "\nStopped; everything so far is in run/checkpoint-" in stderr
    assert "Error" not in stderr, "it was asked to"
    assert "Traceback" not in stderr
    run = train_here(here, FLAGS, monkeypatch, resume="latest")
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_before_the_first_step_says_what_is_cached(
    number: int, settings, request: pytest.FixtureRequest
) -> None:
    # A shell without job control lets what it starts in the background ignore Ctrl-C.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    events = []

    def stop(event: object) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.name == "Encoding":
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    config = settings(data__seed=int(number), data__random_flip=True)
    with pytest.raises(Interrupted, match="nothing was trained now") as caught:
        hublora.train(config, callback=stop)
    assert "The same command continues" in str(caught.value)
    assert not list(config.run_folder.glob("checkpoint-*"))
    assert signal.getsignal(signal.SIGTERM) is before
    assert hublora.train(config, callback=events.append).steps == 4
