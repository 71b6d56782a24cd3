"""Random numbers depend on the seed and the number of the sample, and on nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hublora.training.losses import training_losses
from hublora.training.rng import choose, sample_normals


def normals(seed: int, numbers: range, shape: tuple[int, ...] = (4, 8, 8)) -> torch.Tensor:
    return torch.cat(
        [part.flatten(1) for part in sample_normals(seed, numbers, shape, torch.Generator())], 1
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective__snr_gamma": 5.0},
        {"objective__pyramid_noise": 0.3, "objective__input_perturbation": 0.1},
    ],
    ids=["plain", "min-snr", "more-noise"],
)
def test_loss_and_gradients_do_not_depend_on_the_split_into_batches(start, changes) -> None:
    session = start(data__random_flip=True, objective__noise_offset=0.1, **changes)
    with torch.no_grad():  # an untrained adapter has no gradient in its first half
        for parameter in session.parameters:
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    results = []
    for size in (1, 2, 4):
        total = 0.0
        for first in range(0, 4, size):
            numbers = range(first, first + size)
            loss = training_losses(session, numbers, torch.Generator())[0].mean()
            (loss * size / 4).backward()
            total += loss.item() * size / 4
        gradients = torch.cat([parameter.grad.flatten() for parameter in session.parameters])
        session.optimizer.zero_grad()
        results.append((total, gradients))
    for total, gradients in results[1:]:
        assert total == pytest.approx(results[0][0], rel=1e-5)
        assert torch.allclose(gradients, results[0][1], rtol=1e-3, atol=1e-6)


def test_no_two_samples_share_noise() -> None:
    noise = normals(0, range(2000), (1, 2, 2))
    assert len(torch.unique(noise.flatten())) == noise.numel()


def test_samples_do_not_depend_on_their_position_in_a_batch() -> None:
    assert torch.equal(normals(3, range(10, 14))[2], normals(3, range(12, 13))[0])
    alone = choose(3, range(12, 13), 5, 4, 0.5)
    together = choose(3, range(10, 14), 5, 4, 0.5)
    assert alone.indices[0] == together.indices[2]
    assert alone.variants[0] == together.variants[2]
    assert alone.captions[0] == together.captions[2]
    assert alone.uniforms[0] == together.uniforms[2]


def test_another_seed_gives_other_numbers() -> None:
    assert not torch.equal(normals(0, range(2)), normals(1, range(2)))
    assert choose(0, range(50), 50, 1, 0).indices != choose(1, range(50), 50, 1, 0)


def test_noise_is_standard_normal() -> None:
    noise = normals(0, range(200))
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(1, abs=0.01)


def test_the_posterior_does_not_repeat_the_noise() -> None:
    noise, posterior, _ = sample_normals(0, range(50), (4, 8, 8), torch.Generator())
    correlation = (noise * posterior).mean().item()
    assert correlation == pytest.approx(0, abs=0.03)


def test_every_image_is_sampled_once_per_epoch() -> None:
    indices = [choose(9, [n], 7, 1, 0).indices[0] for n in range(28)]
    epochs = [indices[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(one) == list(range(7)) for one in epochs)
    assert len({tuple(one) for one in epochs}) > 1, "each epoch has an order of its own"


def test_a_batch_may_reach_into_the_next_epoch() -> None:
    assert len(choose(0, range(5), 2, 1, 0).indices) == 5


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_captions_are_left_out_at_the_asked_rate(rate: float) -> None:
    captions = choose(0, range(4000), 10, 1, rate).captions
    left_out = sum(caption < 0 for caption in captions) / len(captions)
    assert left_out == pytest.approx(rate, abs=0.02)


def test_choices_are_uniform() -> None:
    choices = choose(0, range(8000), 10, 4, 0)
    assert all(
        count == pytest.approx(2000, rel=0.1) for count in Counter(choices.variants).values()
    )
    assert choices.uniforms.min() >= 0
    assert choices.uniforms.max() < 1
    assert choices.uniforms.mean().item() == pytest.approx(0.5, rel=0.03)
    odd = sum(caption % 2 for caption in choices.captions) / 8000
    assert odd == pytest.approx(0.5, abs=0.03)
