"""Random numbers of a training as a function of the seed and the number of the sample.

Sample n of a run is the n-th image that is trained on, counted over all steps, batches and devices.
Its random numbers depend on (seed, n) alone, so they are the same in a resumed run, in another
split into batches and on more devices, and no generator state needs to be saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Choices:
    """Random choices on the host for a batch of B samples.

    Attributes:
        indices: Image of each sample, B integers in [0, N).
        variants: Crop and flip of each sample, B integers in [0, V).
        captions: Caption of each sample, B integers to be taken modulo the image's captions;
            negative where the caption is dropped.
        uniforms: [B] in [0, 1), float64, on the CPU, from which timesteps are computed.
    """

    indices: list[int]
    variants: list[int]
    captions: list[int]
    uniforms: torch.Tensor


def choose(
    seed: int,
    numbers: Sequence[int],
    images: int,
    variants: int,
    caption_dropout: float,
) -> Choices:
    """Return the random choices on the host for the samples `numbers`.

    Args:
        seed: Seed of the run.
        numbers: B sample numbers.
        images: Number of training images N, repeats included.
        variants: Number V of crops and flips per image.
        caption_dropout: Probability of an empty caption, in [0, 1].
    """
    rows = [_uniforms(seed, number) for number in numbers]
    return Choices(
        indices=[_order(seed, n // images, images)[n % images] for n in numbers],
        variants=[int(row[0] * variants) for row in rows],
        captions=[-1 if row[2] < caption_dropout else int(row[1] * 2**16) for row in rows],
        uniforms=torch.tensor([row[3] for row in rows], dtype=torch.float64),
    )


def sample_normals(
    seed: int,
    numbers: Sequence[int],
    shape: Sequence[int],
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample standard normals for the samples `numbers` on the generator's device.

    Args:
        seed: Seed of the run.
        numbers: B sample numbers.
        shape: (c, h, w) of a latent.
        generator: Reseeded for each sample.

    Returns:
        noise [B, c, h, w], posterior noise [B, c, h, w], offsets [B, c, 1, 1], all float32.
    """
    channels, height, width = shape
    size = channels * height * width
    rows = []
    for number in numbers:
        generator.manual_seed(_hash(seed, "normals", number))
        rows.append(torch.randn(2 * size + channels, generator=generator, device=generator.device))
    normals = torch.stack(rows)
    noise = normals[:, :size].reshape(-1, channels, height, width)
    posterior = normals[:, size : 2 * size].reshape(-1, channels, height, width)
    return noise, posterior, normals[:, 2 * size :].reshape(-1, channels, 1, 1)


def sample_extra_normals(
    seed: int, purpose: str, numbers: Sequence[int], size: int, generator: torch.Generator
) -> torch.Tensor:
    """Sample further standard normals for the samples `numbers`, [B, size], float32, independent of
    those of any other purpose."""
    rows = []
    for number in numbers:
        generator.manual_seed(_hash(seed, purpose, number))
        rows.append(torch.randn(size, generator=generator, device=generator.device))
    return torch.stack(rows)


def split(seed: int, images: int, held_out: float) -> tuple[list[int], list[int]]:
    """Return the indices of training images and of held-out images, each ascending.

    Args:
        seed: Seed of the run.
        images: Number of images.
        held_out: Number of images to hold out; below 1 a share of them, at least one.
    """
    count = int(held_out) if held_out >= 1 else max(1, round(held_out * images))
    if not held_out:
        return list(range(images)), []
    held_out_indices = set(_order(seed, -1, images)[:count])
    return [n for n in range(images) if n not in held_out_indices], sorted(held_out_indices)


def shuffled(seed: int, purpose: str, number: int, count: int) -> list[int]:
    """Return a permutation of 0 … `count` - 1 that depends on the arguments alone."""
    generator = torch.Generator().manual_seed(_hash(seed, purpose, number))
    return torch.randperm(count, generator=generator).tolist()


def sample_integer(seed: int, purpose: str, number: int) -> int:
    """Return a random integer in [0, 2**48) for a sample, to be taken modulo a small number."""
    return _hash(seed, purpose, number) >> 15


def sample_uniforms(seed: int, purpose: str, number: int, count: int) -> list[float]:
    """Return `count` random numbers in [0, 1) for a sample, independent of other purposes."""
    generator = torch.Generator().manual_seed(_hash(seed, f"{purpose} uniforms", number))
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def derived_seed(seed: int, purpose: str) -> int:
    """Return a seed whose random numbers are independent of those of `seed` and other purposes."""
    return _hash(seed, purpose, 0)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, images: int) -> list[int]:
    """Return the order of the images in one epoch."""
    return shuffled(seed, "order", epoch, images)


def _uniforms(seed: int, number: int) -> tuple[float, float, float, float]:
    digest = hashlib.blake2b(f"{seed}/choices/{number}".encode(), digest_size=32).digest()
    parts = [int.from_bytes(digest[start : start + 8], "big") for start in (0, 8, 16, 24)]
    a, b, c, d = ((part >> 11) / 2**53 for part in parts)  # 53 bits: exactly representable
    return a, b, c, d


def _hash(seed: int, purpose: str, number: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch seeds are signed
