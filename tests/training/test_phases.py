"""A training whose trainables start at several steps: its schedule, its dry run, and a failure."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTextModel

import hublora
from hublora.progress import FileWritten, StepProgress, no_callback
from hublora.training.config.training_config import TrainingConfig
from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.run_folder import list_checkpoints
from hublora.training.session import Session
from hublora.workflows.train.dry_run import measure_step

PIVOTAL = {"method": "pivotal", "tokens__placeholders": ["<toy>"], "schedule__max_train_steps": 5}


def test_prodigy_trains_both_phases_of_pivotal_tuning(start: Callable[..., Session]) -> None:
    pytest.importorskip("prodigyopt")
    session = start(**PIVOTAL, optimizer__name="prodigy", optimizer__learning_rate=None)
    rates = [
        (event.learning_rate, event.token_embedding_lr)
        for event in train(session)
        if isinstance(event, StepDone)
    ]
    assert [adapter for adapter, _ in rates[:2]] == [0.0, 0.0]
    assert all(adapter == tokens > 0 for adapter, tokens in rates[2:]), "it takes one rate"


def test_a_dry_run_does_a_step_of_each_phase(start: Callable[..., Session]) -> None:
    session = start(**PIVOTAL)
    before = [
        parameter.detach().clone() for parameter in session.adapted["unet"].parameters.values()
    ]
    assert measure_step(session) > 0
    after = session.adapted["unet"].parameters.values()
    assert any((old != new).any() for old, new in zip(before, after, strict=True))


def test_a_failure_saves_a_checkpoint_from_which_it_resumes(
    settings: Callable[..., TrainingConfig], tmp_path: Path, hub: object
) -> None:
    """The result is that of a training without the failure."""

    def fail(event: Any) -> None:
        if isinstance(event, StepProgress) and event.step == 4:
            raise RuntimeError("a defect")

    whole = hublora.train(settings(output_dir=tmp_path / "whole"), callback=no_callback)
    config = settings(output_dir=tmp_path / "failed")
    with pytest.raises(RuntimeError, match="a defect"):
        hublora.train(config, callback=fail)
    assert [one.name for one in list_checkpoints(config.run_folder)] == ["checkpoint-4"]
    again = hublora.train(config, resume="latest", callback=no_callback)
    name = "pytorch_lora_weights.safetensors"
    one, other = (found.folder / "checkpoint-4" / name for found in (whole, again))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("method", ["text-to-image", "textual-inversion"])
def test_text_encoders_are_out_of_memory_before_the_first_step_unless_they_are_trained_or_run(
    settings: Callable[..., TrainingConfig], method: str, hub: object
) -> None:
    """And stay so for previews and the gallery."""

    def encoders() -> set[int]:
        gc.collect()
        return {id(one) for one in gc.get_objects() if isinstance(one, CLIPTextModel)}

    def look(event: Any) -> None:
        if isinstance(event, StepProgress | FileWritten):
            seen.append(encoders() - before)

    seen: list[set[int]] = []
    before = encoders()
    tokens = {"tokens__placeholders": ["<x>"]} if method == "textual-inversion" else {}
    config = settings(
        method=method, **tokens, schedule__max_train_steps=2, validation__steps=1,
        validation__prompts=["x"], validation__num_images=1, validation__num_inference_steps=1,
    )  # fmt: skip
    hublora.train(config, callback=look)
    assert len(seen) > 5
    assert any(seen) is (method == "textual-inversion")
