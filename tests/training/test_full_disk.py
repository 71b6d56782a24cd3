"""A disk that is full and a SIGTERM cost no checkpoint, and the training goes on from there."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hublora
from hublora.errors import ConfigError, Interrupted
from hublora.progress import FileWritten
from hublora.training.checkpoint import check_checkpoint, save_checkpoint
from hublora.training.config.training_config import TrainingConfig
from hublora.training.run_folder import list_checkpoints
from hublora.training.session import Session

WEIGHTS = "pytorch_lora_weights.safetensors"
Settings = Callable[..., TrainingConfig]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write more than `size` bytes of a file: a disk that is full, as far
    as a process can tell, and needs no rights."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_checkpoint_that_does_not_fit_leaves_the_others(
    start: Callable[..., Session], size: int
) -> None:
    session = start(checkpoint__total_limit=1)
    session.step = 1
    good = save_checkpoint(session)
    session.step = 2
    with largest_file(size), pytest.raises(OSError, match="File too large"):
        save_checkpoint(session)
    assert list_checkpoints(session.config.run_folder) == [good]
    check_checkpoint(good, session.config, session.inputs, session.accelerator)
    assert sorted(path.name for path in good.parent.iterdir()) == ["checkpoint-1"], "no rest of it"
    assert save_checkpoint(session).name == "checkpoint-2"


def test_a_full_disk_is_one_sentence_and_the_training_goes_on_to_the_same_bytes(
    settings: Settings, tmp_path: Path
) -> None:
    given = {"checkpoint__steps": 2, "schedule__max_train_steps": 6, "validation__num_images": 1}
    whole = settings(output_dir=tmp_path / "whole" / "run", **given)
    hublora.train(whole)
    config = settings(output_dir=tmp_path / "full" / "run", **given)
    with pytest.raises(ConfigError, match="is full") as caught, largest_file(30_000):
        # What there is to write before the first step is written already, by the other one.
        hublora.train(config)
    assert "No checkpoint was saved yet" in str(caught.value.hint)

    def fill_up(event: object) -> None:
        if isinstance(event, FileWritten) and event.path.name == "checkpoint-2":
            soft = (30_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, soft)

    with largest_file(10**9), pytest.raises(ConfigError, match="is full") as caught:
        hublora.train(config, callback=fill_up)
    assert f"checkpoint-2. Resume from it: hublora train --resume {config.run_folder}" in str(
        caught.value.hint
    )
    hublora.train(config, resume="latest")
    for name in (WEIGHTS, "training/history.jsonl"):
        assert (config.run_folder / name).read_bytes() == (whole.run_folder / name).read_bytes()


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGHUP, signal.SIGHUP]])
def test_what_ends_a_job_saves_and_the_training_goes_on_to_the_same_bytes(
    settings: Settings, tmp_path: Path, numbers: list[int]
) -> None:
    given = {"checkpoint__steps": 2, "schedule__max_train_steps": 6, "validation__num_images": 1}
    whole = settings(output_dir=tmp_path / "whole" / "run", **given)
    hublora.train(whole)
    config = settings(output_dir=tmp_path / "stopped" / "run", **given)

    def terminate(event: object) -> None:
        if isinstance(event, FileWritten) and event.path.name == "checkpoint-4":
            for number in numbers:
                os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as caught:
        hublora.train(config, callback=terminate)
    assert caught.value.checkpoint == config.run_folder / "checkpoint-4"
    hublora.train(config, resume="latest")
    assert (config.run_folder / WEIGHTS).read_bytes() == (whole.run_folder / WEIGHTS).read_bytes()


def test_without_anybody_to_read_its_lines_it_saves_and_stops(settings: Settings) -> None:
    reading, writing = os.pipe()

    def tell(event: object) -> None:
        if isinstance(event, FileWritten) and event.path.name == "checkpoint-2":
            os.close(reading)
        os.write(writing, f"{event}\n".encode())

    config = settings(checkpoint__steps=2, schedule__max_train_steps=6)
    with pytest.raises(Interrupted) as caught:
        hublora.train(config, callback=tell)
    os.close(writing)
    assert caught.value.checkpoint == config.run_folder / "checkpoint-2"


def test_a_hang_up_that_is_ignored_stops_nothing(
    settings: Settings, request: pytest.FixtureRequest
) -> None:
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup starts a command
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, usual))

    def hang_up(event: object) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    config = settings(schedule__max_train_steps=2, validation__num_images=1)
    assert hublora.train(config, callback=hang_up).steps == 2
