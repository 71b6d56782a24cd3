"""With masks, only what they show is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hublora.training import objectives
from hublora.training.losses import training_losses
from tests.tiny import save_images


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """Two images, each with the left half to be learned; numbers 0 and 1."""
    folder = save_images(tmp_path / "masked", count=2)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    for number in range(2):
        Image.fromarray(mask).save(folder / f"{number}.mask.png")
    return folder


def losses(session) -> torch.Tensor:
    return training_losses(session, range(2), torch.Generator())[0].detach()


def test_the_weighted_error_is_the_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    errors, mask = (
        torch.rand(2, 4, 3, 3, generator=generator),
        torch.rand(2, 1, 3, 3, generator=generator),
    )
    expected = sum(
        errors[:, :, y, x] * (mask[:, :, y, x] + 0.2 * (1 - mask[:, :, y, x]))
        for y in range(3)
        for x in range(3)
    ).mean(1)
    found = objectives.per_sample(objectives.masked(errors, mask, 0.2))
    assert torch.allclose(found, expected / 9)


def test_what_a_mask_hides_is_not_learned(start, masked: Path) -> None:
    given = {"data__dataset": None, "data__folder": masked, "seed": 3}
    whole = losses(start(**given))
    only = start(**given, data__masks=True)
    part = losses(only)
    mixed = losses(start(**given, data__masks=True, objective__outside_mask=0.25))
    assert (part < whole).all()
    assert torch.allclose(mixed, 0.25 * whole + 0.75 * part, rtol=1e-5)
    assert only.data.masks([0], [0])[0, 0, 0].tolist() == [1.0] * 8 + [0.0] * 8


def test_a_white_mask_changes_nothing(start, masked: Path) -> None:
    for number in range(2):
        Image.new("L", (64, 64), 255).save(masked / f"{number}.mask.png")
    given = {"data__dataset": None, "data__folder": masked, "holdout__images": 1}
    assert torch.equal(losses(start(**given)), losses(start(**given, data__masks=True)))
