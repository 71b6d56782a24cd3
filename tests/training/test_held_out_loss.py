"""When to stop is measured on held-out images, always in the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import hublora
from hublora.errors import ConfigError
from hublora.progress import Note
from hublora.training.checkpoint import load_checkpoint, save_checkpoint
from hublora.training.events import CheckpointDue, StepDone
from hublora.training.held_out_loss import BUCKETS, has_stalled, measure
from hublora.training.loop import train
from hublora.training.metrics_log import MetricsLog
from hublora.training.paired_difference import paired_difference
from hublora.training.rng import split
from hublora.training.session import Session


def test_held_out_images_are_never_trained_on(
    start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = start(
        holdout__images=2,
        train_batch_size=4,
        schedule__max_train_steps=None,
        schedule__num_train_epochs=3,
        holdout__steps=100,
    )
    seen: list[int] = []
    latents = session.data.latents

    def remember(indices: Any, variants: Any) -> Any:
        seen.extend(indices)
        return latents(indices, variants)

    monkeypatch.setattr(session.data, "latents", remember)
    steps = 0
    for event in train(session):
        if isinstance(event, StepDone):
            steps += 1
            if steps == 2:
                break
    assert session.total_steps == 3, "3 epochs of the 4 others, 4 a step"
    assert set(seen) == set(session.train_indices)
    assert not set(seen) & set(session.held_out_indices)


@pytest.mark.parametrize(("held_out", "count"), [(2, 2), (0.5, 3), (0.01, 1), (0, 0)])
def test_a_number_or_a_share_is_held_out(held_out: float, count: int) -> None:
    train, held_out_indices = split(0, 6, held_out)
    assert len(held_out_indices) == count
    assert sorted(train + held_out_indices) == list(range(6))


def test_all_images_cannot_be_held_out(start: Callable[..., Session]) -> None:
    with pytest.raises(ConfigError, match="6 images"):
        start(holdout__images=6)


def test_a_measure_is_the_mean_error_at_fixed_noise_and_timesteps(
    start: Callable[..., Session],
) -> None:
    """Against the equation, written out for each image and timestep alone."""
    from hublora.training.rng import sample_extra_normals

    session = start(holdout__images=2, holdout__timesteps=4, train_batch_size=3)
    alphas = session.parameterization.alphas_cumprod
    errors = []
    for number in range(8):
        image, part = session.held_out_indices[number // 4], number % 4
        time = int((part + 0.5) / 4 * 1000)
        normals = sample_extra_normals(0, "held out", [number], 2 * 4 * 16 * 16, torch.Generator())
        noise, posterior = normals.view(2, 1, 4, 16, 16)
        mean, std = session.data.latents([image], [0])
        noisy = alphas[time].sqrt() * (mean + std * posterior) + (1 - alphas[time]).sqrt() * noise
        hidden = session.data.prompts([image], [0])["encoder_hidden_states"]
        with torch.no_grad():
            prediction = session.pipe.unet(noisy, torch.tensor([time]), hidden).sample
        errors.append(F.mse_loss(prediction, noise).item())
    taken = measure(session, torch.Generator())
    assert taken.loss == pytest.approx(sum(errors) / 8, rel=1e-5)
    assert taken.is_best
    means = [value for value in taken.buckets if value is not None]
    assert means == pytest.approx([(errors[n] + errors[n + 4]) / 2 for n in range(4)], rel=1e-5)
    assert measure(session, torch.Generator()).loss == taken.loss


def test_measuring_does_not_change_the_training(start: Callable[..., Session]) -> None:
    def end(**changes: Any) -> torch.Tensor:
        session = start(holdout__images=2, adapter__dropout=0.5, **changes)
        list(train(session))
        return torch.cat([parameter.detach().flatten() for parameter in session.parameters])

    assert torch.equal(end(holdout__steps=1), end(holdout__steps=100))


# At such a rate the adapter gets clearly worse by the second step.
WORSE = {
    "holdout__images": 2,
    "holdout__steps": 1,
    "optimizer__learning_rate": 0.5,
    "schedule__name": "constant",
    "schedule__max_train_steps": 50,
}


# At the other rate no loss moves, so that none of the steps is worse than another on any machine.
@pytest.mark.parametrize(("rate", "patience", "clear"), [(0.5, 1, True), (1e-30, 3, False)])
def test_the_best_is_the_result_where_the_last_is_worse_by_more_than_the_error(
    start: Callable[..., Session], tmp_path: Path, rate: float, patience: int, clear: bool
) -> None:
    """After a resume it is all the same."""
    changes = {**WORSE, "optimizer__learning_rate": rate, "holdout__patience": patience}
    session = start(**changes)
    states, due = {}, []
    for event in train(session):
        if isinstance(event, StepDone):
            states[event.step] = [p.detach().clone() for p in session.parameters]
            if event.step == 1:
                folder = save_checkpoint(session)
        elif isinstance(event, CheckpointDue):
            due.append(event.step)
    losses = [loss for _, loss in session.measures]
    best = losses.index(min(losses)) + 1
    assert session.step == best + patience < 50
    assert due == [session.step], "the last state is saved"
    rise = session.loss_after_best
    assert rise is not None
    assert rise.mean == pytest.approx(losses[-1] - losses[best - 1])
    assert (rise.mean > 2 * rise.error) is clear
    session.finalize()
    assert session.result_step == (best if clear else session.step)
    assert all(map(torch.equal, states[session.result_step], session.parameters))

    resumed = start(**changes)
    load_checkpoint(resumed, folder)
    list(train(resumed))
    assert resumed.measures == session.measures
    resumed.finalize()
    assert resumed.result_step == session.result_step
    assert all(map(torch.equal, session.parameters, resumed.parameters))


def test_the_result_s_step_is_told_everywhere(settings: Callable[..., Any]) -> None:
    from hublora.adapters.header import read_file_header
    from hublora.workflows.list_runs import list_runs

    events: list[object] = []
    config = settings(**WORSE, holdout__patience=1, validation__num_images=1)
    result = hublora.train(config, callback=events.append)
    assert (result.steps, result.result_step) == (2, 1)
    header = read_file_header(result.folder / "pytorch_lora_weights.safetensors").metadata
    assert (header["hublora.steps"], header["hublora.last_step"]) == ("1", "2")
    card = (result.folder / "README.md").read_text()
    assert "| Steps | 1 of 2:" in card
    assert "| Images | 4 |" in card
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("on 4 images (2 held out)" in note for note in notes)
    (told,) = (note for note in notes if note.startswith("The result is step 1:"))
    assert f"The weights of step 2 are in {result.folder / 'checkpoint-2'}." in told
    (run,) = list_runs(result.folder)
    assert (run.step, run.result_step) == (2, 1)


def test_the_error_is_that_of_pairs_and_of_images() -> None:
    first = torch.zeros(6)
    even = paired_difference(first, torch.tensor([1.0, 3, 1, 3, 1, 3]), 2)
    assert even.mean == 2
    assert even.error == pytest.approx(torch.tensor([1.0, 3, 1, 3, 1, 3]).std().item() / 6**0.5)
    by_image = paired_difference(first, torch.tensor([0.0, 0, 3, 3, 6, 6]), 2)
    assert by_image.error == pytest.approx(3 / 3**0.5)
    assert not paired_difference(first[:1], torch.ones(1), 1).is_clear
    assert paired_difference(first, torch.ones(6), 2).is_clear
    assert not paired_difference(first, -torch.ones(6), 2).is_clear


@pytest.mark.parametrize(
    ("losses", "patience", "stalled"),
    [
        ([3, 2, 1], 1, False),
        ([3, 2, 2], 1, True),
        ([1, 2, 3], 3, False),
        ([1, 2, 3, 4], 3, True),
        ([2, 3, 3, 1], 3, False),
        ([1, 2], None, False),
    ],
)
def test_patience(
    start: Callable[..., Session], losses: list[float], patience: int | None, stalled: bool
) -> None:
    session = start(holdout__images=1, holdout__patience=patience)
    session.measures = list(enumerate(losses))
    assert has_stalled(session) is stalled


def test_the_history_has_losses_by_timestep_and_measures(
    start: Callable[..., Session], tmp_path: Path
) -> None:
    from hublora.training.rng import choose

    session = start(train_batch_size=2, holdout__images=2, holdout__steps=2)
    history = MetricsLog(tmp_path / "history.jsonl")
    for event in train(session):
        if isinstance(event, StepDone):
            history.add(event)
    history.flush()
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "held_out" in row] == [2, 4]
    assert [(row["step"], row["held_out"]) for row in rows if "held_out" in row] == session.measures
    for row in rows:
        numbers = range(2 * row["step"] - 2, 2 * row["step"])
        uniforms = choose(0, numbers, 4, 1, 0).uniforms.tolist()
        parts = [int(value * 1000) * BUCKETS // 1000 for value in uniforms]
        assert set(row["buckets"]) == {str(part) for part in parts}
        mean = sum(row["buckets"][str(part)] for part in parts) / 2
        assert mean == pytest.approx(row["loss"], rel=1e-5)
