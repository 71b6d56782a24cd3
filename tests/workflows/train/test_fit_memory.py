"""`hublora train --fit` finds the fastest split to do a step that fits, and keeps its images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hublora.errors import ConfigError
from hublora.training.config.training_config import TrainingConfig
from hublora.workflows.train.fit_memory import BatchSplit, Cost, Measure, _splits, choose, fit
from tests.entry import Done

GIVEN = {
    "base.model": "bases/epsilon",
    "data.dataset": "bases/images",
    "train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "schedule.max_train_steps": 2,
}


def config(**changes: object) -> TrainingConfig:
    keys = {name.replace("__", "."): value for name, value in changes.items()}
    return TrainingConfig.from_settings({**GIVEN, **keys})


def device(
    fixed: int, plain: int, checkpointed: int, runs_out_at: int, tried: list[BatchSplit]
) -> Measure:
    """A device whose memory grows evenly with the batch, on which large batches are faster."""

    def measure(split: BatchSplit) -> Cost | None:
        tried.append(split)
        memory = fixed + split.batch_size * (checkpointed if split.checkpointing else plain)
        seconds = (
            (split.batch_size + 2)
            * split.accumulation_steps
            * (1.5 if split.checkpointing else 1.0)
        )
        return None if memory > runs_out_at else Cost(memory, seconds)

    return measure


@pytest.mark.parametrize(
    ("limit", "batch", "checkpointing"),
    [
        (1000, 16, False),
        (100 + 8 * 20, 8, False),
        # Seconds: 24 for 4 at a time, 32 for 2; with checkpointing 27 for 16, 30 for 8.
        (100 + 4 * 20, 4, False),
        (100 + 4 * 20 - 1, 8, True),
        (100 + 16, 2, True),
    ],
)
def test_the_fastest_that_fits_is_chosen(limit: int, batch: int, checkpointing: bool) -> None:
    tried: list[BatchSplit] = []
    splits = _splits(config(train_batch_size=16, gradient_accumulation_steps=1))
    chosen = choose(device(100, 20, 5, limit + 60, tried), splits, limit)
    assert not isinstance(chosen, Cost)
    split, cost = chosen
    fits = [w for w in splits if 100 + w.batch_size * (5 if w.checkpointing else 20) <= limit]
    fastest = min(
        (w.batch_size + 2) * w.accumulation_steps * (1.5 if w.checkpointing else 1) for w in fits
    )
    assert cost.seconds == fastest
    assert (split.batch_size, split.checkpointing) == (batch, checkpointing)
    assert split.batch_size * split.accumulation_steps == 16
    assert cost.memory <= limit
    assert len(tried) <= 9


def test_what_cannot_fit_gives_the_least_that_is_needed() -> None:
    splits = _splits(config())
    assert choose(device(100, 20, 5, 10**6, []), splits, 50) == Cost(105, 36.0)
    assert choose(lambda split: None, splits, 50) == Cost(0, 0.0)


def test_images_of_several_shapes_share_no_batch() -> None:
    assert {split.batch_size for split in _splits(config())} == {1, 2, 4, 8}
    assert {split.batch_size for split in _splits(config(data__aspect_buckets=True))} == {1, 2, 4}
    assert {split.checkpointing for split in _splits(config(gradient_checkpointing=True))} == {True}


def test_a_training_is_fitted_and_keeps_the_images_of_a_step(
    hub: object,
    hublora_cli: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [f"--set={key}={value}" for key, value in GIVEN.items()]
    done = hublora_cli("train", *flags, "--fit", "--dry-run", "--json")
    assert done.status == 0, done.err
    assert "Fits: batches of" in done.err
    found = json.loads(done.out)
    assert found["images_per_step"] == 8
    settings = found["settings"]
    assert settings["train_batch_size"] * settings["gradient_accumulation_steps"] == 8
    assert not (tmp_path / "runs").exists()
    wrong = hublora_cli("train", *flags, "--fit", "much")
    assert wrong.status == 2
    assert "no size in GiB" in wrong.err


def test_too_little_memory_is_a_sentence_that_says_what_to_change(hub: object) -> None:
    with pytest.raises(ConfigError, match=r"needs \d+\.\d+ GiB, and 0\.01 .*adamw-8bit") as caught:
        fit(config(), 0.01)
    assert "data.resolution=32" in str(caught.value)
