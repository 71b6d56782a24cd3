"""Each objective against its equation, written out for one sample at a time."""

from __future__ import annotations

import math

import pytest
import torch

from hublora.training import objectives

NOISE = torch.tensor([0.3, 0.7, -1.5, 2.0]).view(4, 1, 1, 1)


def test_offset_noise_shifts_each_channel_as_a_whole() -> None:
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    offsets = torch.arange(6.0).view(2, 3, 1, 1)
    shifted = objectives.offset_noise(noise, offsets, 0.1)
    for sample in range(2):
        for channel in range(3):
            moved = shifted[sample, channel] - noise[sample, channel]
            assert torch.allclose(moved, torch.full((4, 4), 0.1 * (3 * sample + channel)))


def test_pyramid_noise_is_multires_noise_scaled_to_variance_one() -> None:
    """Its levels from 0 on, as the report and kohya's scripts add them, for one sample."""
    generator = torch.Generator().manual_seed(0)
    factors, discount = [2.5, 3.9, 2.0], 0.3
    sizes = objectives.pyramid_sizes(24, 16, factors)
    assert sizes == [(9, 6), (1, 1)], "24/2.5, 16/2.5; 24/3.9², 16/3.9²"
    noise = torch.randn(3, 24, 16, generator=generator)
    levels = [torch.randn(3, *size, generator=generator) for size in sizes]
    upsample = torch.nn.Upsample(size=(24, 16), mode="bilinear")
    expected = 2**0.5 * noise  # the noise and level 0, which are independent
    for number, level in enumerate(levels, 1):
        expected += upsample(level[None])[0] * discount**number
    found = objectives.pyramid_noise(noise, levels, discount)
    assert torch.allclose(found, expected / expected.std(), atol=1e-6)
    assert found.std().item() == pytest.approx(1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 8), (64, 64), (96, 40), (128, 128)])
def test_no_factor_gives_more_or_larger_levels_than_two(height: int, width: int) -> None:
    largest = objectives.pyramid_sizes(height, width)
    for factor in (2.0, 2.3, 3.0, 3.999):
        sizes = objectives.pyramid_sizes(height, width, [factor] * len(largest))
        assert len(sizes) <= len(largest)
        for size, limit in zip(sizes, largest, strict=False):
            assert size[0] <= limit[0]
            assert size[1] <= limit[1]
        assert min(sizes[-1]) == 1
        assert all(min(size) > 1 for size in sizes[:-1])


def test_a_perturbed_input_is_the_scripts_new_noise() -> None:
    other = NOISE.flip(0)
    added = objectives.perturbed_input(NOISE, other, 0.1)
    assert torch.equal(added, NOISE + 0.1 * other)


def test_pseudo_huber_error_follows_its_equation() -> None:
    differences = [0.0, 0.01, 0.5, 4.0, -30.0]
    prediction = torch.tensor(differences)
    errors = objectives.pseudo_huber_error(prediction, torch.zeros(5), 0.1).tolist()
    expected = [2 * 0.1 * (math.sqrt(d * d + 0.1 * 0.1) - 0.1) for d in differences]
    assert errors == pytest.approx(expected, rel=1e-4)


def test_pseudo_huber_error_is_squared_below_its_threshold_and_linear_above() -> None:
    errors = objectives.pseudo_huber_error(
        torch.tensor([0.01, 100.0, 200.0], dtype=torch.float64), torch.zeros(3), 1.0
    )
    assert errors[0].item() == pytest.approx(1e-4, rel=1e-2)
    assert (errors[2] - errors[1]).item() == pytest.approx(200, rel=1e-2)  # 2c a unit


def test_the_loss_is_weighted_per_sample() -> None:
    errors = objectives.squared_error(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2) * 2)
    assert objectives.per_sample(errors).tolist() == [4, 4]
    assert objectives.per_sample(errors, torch.tensor([1.0, 0.5])).tolist() == [4, 2]


def test_errors_are_computed_in_single_precision() -> None:
    prediction = torch.full((1, 1, 1, 1), 300.0, dtype=torch.float16)
    error = objectives.squared_error(prediction, torch.zeros(1, 1, 1, 1))
    assert error.dtype == torch.float32
    assert error.item() == 90_000  # above the largest float16
