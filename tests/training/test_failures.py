"""A training that diverges or runs out of memory says so, and what was saved stays good."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

import hublora
from hublora.adapters.files import load_adapter
from hublora.errors import ConfigError
from hublora.training.checkpoint import (
    check_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from hublora.training.config.training_config import TrainingConfig
from hublora.training.failures import Diverged, explained, smaller
from hublora.training.loop import train
from hublora.training.session import Session


def test_a_training_that_diverges_stops_and_its_last_checkpoint_is_good(
    settings: Callable[..., TrainingConfig],
) -> None:
    config = settings(
        optimizer__learning_rate=1e18, schedule__max_train_steps=20, checkpoint__steps=1
    )
    with pytest.raises(Diverged) as caught:
        hublora.train(config)
    step = caught.value.step
    assert 1 < step < 20
    assert f"step {step}" in caught.value.message
    found = list_checkpoints(config.run_folder)
    assert str(found[-1]) in str(caught.value.hint)
    for folder in found:
        load_adapter(folder / "pytorch_lora_weights.safetensors")  # refuses what is not finite
    lines = (config.run_folder / "training" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines][-1] in (step - 1, step)


def test_weights_that_are_not_finite_are_not_saved(start: Callable[..., Session]) -> None:
    session = start()
    session.step = 7
    with torch.no_grad():
        session.parameters[3][0, 0] = torch.nan
    with pytest.raises(Diverged, match="step 7"):
        save_checkpoint(session)
    assert not list_checkpoints(session.config.run_folder)


def test_out_of_memory_is_one_sentence_with_the_setting_to_change(
    start: Callable[..., Session],
) -> None:
    session = start()
    save_checkpoint(session)

    def exhaust(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    session.pipe.unet.register_forward_pre_hook(exhaust)
    with pytest.raises(ConfigError) as caught, explained(session.config, 64):
        list(train(session))
    assert caught.value.message == "The device ran out of memory: add --gradient-checkpointing."
    assert "checkpoint-0" in str(caught.value.hint)


def test_another_failure_is_left_as_it_is(settings: Callable[..., TrainingConfig]) -> None:
    with pytest.raises(RuntimeError, match="a defect"), explained(settings(), 64):
        raise RuntimeError("a defect")


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "add --gradient-checkpointing"),
        (
            {"train_batch_size": 6, "gradient_accumulation_steps": 2},
            "use --train-batch-size 3 --gradient-accumulation-steps 4",
        ),
        ({"train_batch_size": 5}, "use --train-batch-size 1 --gradient-accumulation-steps 5"),
        ({"train_batch_size": 1}, "use --optimizer adamw-8bit, or --resolution 256"),
        ({"optimizer__name": "adafactor"}, "use --resolution 256"),
    ],
)
def test_what_costs_least_is_advised_and_a_step_keeps_its_images(
    settings: Callable[..., TrainingConfig], changes: dict[str, Any], advice: str
) -> None:
    assert smaller(settings(gradient_checkpointing=bool(changes), **changes), 512) == advice


def test_what_is_advised_can_be_resumed(start: Callable[..., Session]) -> None:
    """Four images a step are the same four in one pass and in two."""
    whole = start(train_batch_size=4, schedule__max_train_steps=3)
    list(train(whole))
    first = start(train_batch_size=4, schedule__max_train_steps=3)
    next(train(first))
    folder = save_checkpoint(first)
    halves = start(train_batch_size=2, gradient_accumulation_steps=2, schedule__max_train_steps=3)
    check_checkpoint(folder, halves.config, halves.inputs, halves.accelerator)
    load_checkpoint(halves, folder)
    list(train(halves))
    for one, other in zip(whole.parameters, halves.parameters, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    less = start(train_batch_size=2)
    with pytest.raises(ConfigError, match="images a step"):
        check_checkpoint(folder, less.config, less.inputs, less.accelerator)
