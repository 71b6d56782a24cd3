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


def test_pyramid_noise_is_the_sum_of_its_levels_scaled_to_variance_one() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = objectives.pyramid_sizes(8, 4)
    assert sizes == [(4, 2), (2, 1), (1, 1)]
    noise = torch.randn(2, 3, 8, 4, generator=generator)
    levels = [torch.randn(2, 3, *size, generator=generator) for size in sizes]
    expected = noise.clone()
    for number, level in enumerate(levels, 1):
        upsample = torch.nn.Upsample(size=(8, 4), mode="bilinear")
        expected += upsample(level) * 0.3**number
    for ours, theirs in zip(objectives.pyramid_noise(noise, levels, 0.3), expected, strict=True):
        assert torch.allclose(ours, theirs / theirs.std(), atol=1e-6)
        assert ours.std().item() == pytest.approx(1)


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
