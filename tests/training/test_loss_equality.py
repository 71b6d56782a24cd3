"""The loss curve is the one of the plain loop that everybody writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.session import Session
from tests.tiny import save_images

if TYPE_CHECKING:
    from tests.training.reference import Reference

STEPS = 16


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("epsilon", {"train_batch_size": 2, "gradient_accumulation_steps": 2}),
        ("epsilon", {"objective__snr_gamma": 5.0}),
        ("velocity", {"gradient_accumulation_steps": 2}),
    ],
    ids=["epsilon", "epsilon-min-snr", "velocity"],
)
def test_losses_equal_those_of_the_plain_loop(
    base: str, changes: dict[str, object], start, bases: Path
) -> None:
    from tests.training.reference import Reference

    session = start(
        base__model=f"bases/{base}",
        schedule__max_train_steps=STEPS,
        optimizer__learning_rate=2e-3,
        optimizer__max_grad_norm=0.1,
        seed=7,
        **changes,
    )
    _compare(session, Reference, bases / base, bases / "images", STEPS)


def test_losses_on_xl_equal_those_of_its_plain_loop(start, bases: Path, tmp_path: Path) -> None:
    """Images that are not square: sizes and crops condition the base."""
    from tests.training.reference import XLReference

    images = save_images(tmp_path / "wide", side=160, height=128)
    session = start(
        base__model="bases/xl",
        data__dataset=None,
        data__folder=images,
        data__center_crop=True,
        data__random_flip=True,
        train_batch_size=2,
        optimizer__learning_rate=3e-3,
        schedule__max_train_steps=6,
        seed=7,
    )
    assert session.data.size_conditioning([0], [0]).tolist() == [[128, 160, 0, 8, 64, 64]]
    _compare(session, XLReference, bases / "xl", images, 6)


def _compare(session: Session, kind: type[Reference], base: Path, images: Path, steps: int) -> None:
    """Train with both loops from the same weights and compare the losses."""
    weights = {
        name: parameter.detach().clone()
        for name, parameter in session.pipe.unet.named_parameters()
        if parameter.requires_grad
    }
    assert len(weights) == len(session.parameters)
    reference = kind(base, images, session.config, weights)

    ours = [event.loss.item() for event in train(session) if isinstance(event, StepDone)]
    theirs = reference.losses(steps)

    assert ours == pytest.approx(theirs, rel=1e-4)
    moved = max(
        (parameter - weights[name]).abs().max().item()
        for name, parameter in session.pipe.unet.named_parameters()
        if name in weights
    )
    assert moved > 1e-2, "neither side has trained"


@pytest.mark.parametrize(
    "name", ["flux-dev", "flux2-klein", "z-image", "qwen-image", "krea2", "sd3"]
)
def test_losses_of_flow_matching_equal_those_of_its_plain_loop(
    name: str, start, tmp_path: Path
) -> None:
    from tests.flow_pipelines import FLOW_PIPELINES
    from tests.training.flow_reference import PROMPT, FlowReference

    FLOW_PIPELINES[name]().save_pretrained(tmp_path / "base")
    images = save_images(tmp_path / "images", 2, side=32)
    session = start(
        method="dreambooth",
        base__model=str(tmp_path / "base"),
        data__dataset=None,
        data__folder=images,
        data__resolution=32,
        dreambooth__instance_prompt=PROMPT,
        adapter__targets=["to_q", "to_k", "to_v", "to_out.0"],
        objective__guidance=3.5,
        optimizer__learning_rate=1e-2,
        schedule__name="constant",
        schedule__max_train_steps=20,
        seed=7,
    )
    weights = {
        key: parameter.detach().clone()
        for key, parameter in session.pipe.transformer.named_parameters()
        if parameter.requires_grad
    }
    files = [images / "0.png", images / "1.png"]
    reference = FlowReference(name, tmp_path / "base", files, session.config, weights)
    ours = [event.loss.item() for event in train(session) if isinstance(event, StepDone)]
    assert ours == pytest.approx(reference.losses(20), rel=1e-4)
    moved = max(
        (parameter - weights[key]).abs().max().item()
        for key, parameter in session.pipe.transformer.named_parameters()
        if key in weights
    )
    assert moved > 1e-2, "neither side has trained"
