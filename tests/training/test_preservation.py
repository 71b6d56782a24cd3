"""What the base knew is preserved without class images: its own prediction is the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hublora.families import DenoiserInputs
from hublora.training.checkpoint import load_checkpoint, save_checkpoint
from hublora.training.events import CheckpointDue, StepDone
from hublora.training.loop import train
from hublora.training.losses import training_losses
from hublora.training.preservation import preserved_caption, rewording
from hublora.training.session import Session

PRESERVING = {
    "method": "dreambooth",
    "dreambooth__instance_prompt": "a photo of sks star",
    "objective__preserve": True,
    "objective__preserve_class": "star",
}


@pytest.mark.parametrize(
    ("caption", "triggers", "class_word", "expected"),
    [
        ("a photo of sks dog, on a beach", ["sks dog"], "dog", "a photo of dog, on a beach"),
        ("a photo of SKS dog", ["sks dog"], "", "a photo of"),
        ("sks dog, red, on grass", ["sks dog"], "", "red, on grass"),
        ("sks and sks dog", ["sks", "sks dog"], "it", "it and it"),
        ("a category of cat", ["cat"], "animal", "a category of animal"),
        ("a red house", ["sks dog"], "dog", "dog"),
        ("a red house", ["sks dog"], "", ""),
        ("a red house", [], "house", "house"),
        ("a (sks) dog", ["(sks)"], r"\1", r"a \1 dog"),
    ],
)
def test_the_trigger_is_replaced_and_a_caption_without_it_is_not_preserved(
    caption: str, triggers: Sequence[str], class_word: str, expected: str
) -> None:
    assert preserved_caption(caption, triggers, class_word) == expected


def _train(session: Session, steps: int = 10**9) -> list[float]:
    events = (event for event in train(session) if isinstance(event, StepDone))
    return [event.loss.item() for event, _ in zip(events, range(steps), strict=False)]


def _predict(session: Session, prompt: str) -> Tensor:
    """Return what the denoiser predicts for a prompt at three noise levels."""
    shape = session.data.shape(0)
    noisy = torch.randn(3, *shape, generator=torch.Generator().manual_seed(5))
    conditioning = session.family.encode_prompts(session.pipe, [prompt] * 3)
    uniforms = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    levels = session.parameterization.levels(uniforms, shape)
    inputs = DenoiserInputs(noisy, levels, conditioning, torch.zeros(3, 6), torch.ones(3))
    with torch.no_grad():
        return session.family.predict(session.pipe, session.denoiser, inputs)


def test_it_drifts_less_on_other_prompts(start: Callable[..., Session]) -> None:
    drifts = {}
    for preserve in (False, True):
        changes = PRESERVING if preserve else {**PRESERVING, "objective__preserve": False}
        changes = {k: v for k, v in changes.items() if preserve or k != "objective__preserve_class"}
        session = start(
            **changes,
            schedule__max_train_steps=12,
            optimizer__learning_rate=2e-2,
        )
        before = {
            prompt: _predict(session, prompt) for prompt in ("a photo of star", "a red house")
        }
        _train(session)
        drifts[preserve] = {
            prompt: (_predict(session, prompt) - one).square().mean().item()
            for prompt, one in before.items()
        }
    for prompt in drifts[True]:
        assert drifts[True][prompt] < 0.5 * drifts[False][prompt], drifts


def test_the_loss_is_the_image_s_and_the_distance_to_the_base_s_prediction(
    start: Callable[..., Session],
) -> None:
    """Computed by hand: the same noisy latents, under the caption without its trigger."""
    session = start(**PRESERVING, objective__preserve_weight=0.5, schedule__max_train_steps=8)
    _train(session, 4)
    numbers, generator = range(100, 103), torch.Generator()
    with torch.no_grad():
        total, levels = training_losses(session, numbers, generator)
    seen: dict[str, Any] = {}
    predict = session.family.predict

    class Listening(type(session.family)):  # type: ignore[misc]
        def predict(self, pipe: Any, denoiser: Any, inputs: DenoiserInputs) -> Tensor:
            seen["inputs"] = inputs
            return predict(pipe, denoiser, inputs)

    plain, session.family = session.family, Listening()
    session.streams = session.streams[:1]
    with torch.no_grad():
        alone, _ = training_losses(session, numbers, generator)
    session.family = plain
    text = session.family.encode_prompts(session.pipe, ["a photo of star"] * 3)
    inputs = seen["inputs"]
    inputs = DenoiserInputs(inputs.noisy, levels, text, inputs.size_conditioning)
    with torch.no_grad():
        now = predict(session.pipe, session.denoiser, inputs)
        with session.base_alone():
            base = predict(session.pipe, session.denoiser, inputs)
    distance = (now - base).square().mean(dim=(1, 2, 3))
    assert (distance > 0).all()
    assert torch.allclose(total, alone + 0.5 * distance, rtol=1e-5)


def test_a_resumed_training_ends_in_the_same_bytes(start: Callable[..., Session]) -> None:
    changes = {**PRESERVING, "checkpoint__steps": 2, "adapter__dropout": 0.1}
    whole, kept = start(**changes), None
    for event in train(whole):
        if isinstance(event, CheckpointDue) and event.step == 2:
            kept = save_checkpoint(whole)
    resumed = start(**changes)
    assert kept is not None
    load_checkpoint(resumed, kept)
    _train(resumed)
    for ours, theirs in zip(resumed.parameters, whole.parameters, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("pissa", [False, True])
def test_the_base_s_prediction_leaves_the_adapter_as_it_was(
    start: Callable[..., Session], pissa: bool
) -> None:
    """Also where the initial update was taken out of the base's weights, and with gradients."""
    session = start(**PRESERVING, **({"adapter__init": "pissa"} if pissa else {}))
    before = [parameter.detach().clone() for parameter in session.parameters]
    losses, _ = training_losses(session, range(2), torch.Generator())
    losses.mean().backward()
    assert all(parameter.grad is not None for parameter in session.parameters)
    for parameter, one in zip(session.parameters, before, strict=True):
        assert torch.equal(parameter, one)
    assert len(session.streams) == 2
    at_start, session.streams = losses, session.streams[:1]
    alone, _ = training_losses(session, range(2), torch.Generator())
    assert torch.allclose(at_start, alone, atol=1e-5), "an untrained adapter has changed nothing"


def test_class_images_and_trained_text_encoders_go_with_it(start: Callable[..., Session]) -> None:
    prior = {"dreambooth__prior_preservation": True, "dreambooth__class_prompt": "a star"}
    session = start(class_images=2, **PRESERVING, **prior, adapter__text_encoder=True)
    assert [(s.preserves, len(s.images)) for s in session.streams] == [
        (False, 4),
        (False, 2),
        (True, 4),
    ]
    _train(session)
    streams, generator = session.streams, torch.Generator()
    with torch.no_grad():
        total, _ = training_losses(session, range(3), generator)
        parts = []
        for stream in streams:
            session.streams = (stream,)
            parts.append(training_losses(session, range(3), generator)[0])
    assert torch.allclose(total, sum(parts[1:], parts[0]), rtol=1e-5)
    assert (parts[2] > 0).all()


def test_captions_that_are_dropped_are_preserved_all_the_same(
    start: Callable[..., Session],
) -> None:
    session = start(**PRESERVING, data__caption_dropout=1.0)
    _train(session, 2)
    reword = rewording(session.config)
    assert reword is not None
    assert {reword(one) for captions in session.data.captions for one in captions} == {
        "a photo of star"
    }
    session.streams = session.streams[1:]
    with torch.no_grad():
        dropped, _ = training_losses(session, range(2), torch.Generator())
        session.config = session.config.updated({"data.caption_dropout": 0.0})
        assert torch.equal(training_losses(session, range(2), torch.Generator())[0], dropped)


def test_nothing_is_preserved_while_the_adapter_waits(start: Callable[..., Session]) -> None:
    session = start(
        method="pivotal",
        tokens__placeholders=["<it>"],
        tokens__first_steps=2,
        objective__preserve=True,
    )
    calls = []
    predict = session.family.predict

    class Counting(type(session.family)):  # type: ignore[misc]
        def predict(self, *arguments: Any) -> Tensor:
            calls.append(1)
            return predict(*arguments)

    session.family = Counting()
    counts = []
    for event in train(session):
        if isinstance(event, StepDone):
            counts.append(len(calls))
    assert counts == [1, 2, 5, 8]
