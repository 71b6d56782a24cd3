"""The loss curve is the one of the plain loop that everybody writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hublora.training.loop import train
from hublora.training.session import trainable

STEPS = 50


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
    from hublora.training.events import StepDone
    from tests.training.reference import Reference

    session = start(
        base__model=f"bases/{base}",
        schedule__max_train_steps=STEPS,
        optimizer__max_grad_norm=0.1,
        seed=7,
        **changes,
    )
    weights = {
        name: parameter.detach().clone()
        for name, parameter in session.pipe.unet.named_parameters()
        if parameter.requires_grad
    }
    assert len(weights) == len(trainable([session.pipe.unet]))
    reference = Reference(bases / base, bases / "pictures", session.config, weights)

    ours = [event.loss.item() for event in train(session) if isinstance(event, StepDone)]
    theirs = reference.losses(STEPS)

    assert ours == pytest.approx(theirs, rel=1e-4)
    moved = max(
        (parameter - weights[name]).abs().max().item()
        for name, parameter in session.pipe.unet.named_parameters()
        if name in weights
    )
    assert moved > 1e-2, "neither side has trained"
