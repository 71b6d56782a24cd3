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
