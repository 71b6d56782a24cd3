"""Variants of the noise and of the error of a training step: pure functions.

Latents, noise, predictions and errors are [B, c, h, w]. What a base model is trained to predict is
in `hublora.families.parameterization`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def offset_noise(noise: torch.Tensor, per_channel: torch.Tensor, strength: float) -> torch.Tensor:
    """Return noise + strength · one value per channel, so that mean brightness is learned too.

    Source: https://www.crosslabs.org/blog/diffusion-with-offset-noise

    Args:
        noise: [B, c, h, w], standard normal.
        per_channel: [B, c, 1, 1], standard normal.
        strength: Usually 0.05 to 0.1.
    """
    return noise + strength * per_channel


def pyramid_noise(
    noise: torch.Tensor, levels: Sequence[torch.Tensor], discount: float
) -> torch.Tensor:
    """Return the noise of one sample with coarser noise laid over it, scaled back to variance 1.

    √2 · noise + Σ_i discount^i · upsample(level_i), i from 1; so that large shapes are learned
    too. Source: https://wandb.ai/johnowhitaker/multires_noise/reports/--VmlldzozNjYyOTU2, whose
    level 0 is a second noise of full size, which the √2 stands for. The same discount has the same
    effect as kohya's --multires_noise_discount.

    Args:
        noise: [c, h, w], standard normal.
        levels: Coarser and coarser, each [c, h_i, w_i], standard normal.
        discount: In [0, 1); 0.3 is usual.
    """
    size = noise.shape[-2:]
    total = 2**0.5 * noise
    for number, level in enumerate(levels, start=1):
        coarse = torch.nn.functional.interpolate(level[None], size=size, mode="bilinear")[0]
        total = total + discount**number * coarse
    return total / total.std()


def pyramid_sizes(height: int, width: int, factors: Sequence[float] = ()) -> list[tuple[int, int]]:
    """Return height and width of each coarser level, up to the first with a side of 1.

    Args:
        height: Height of the latent, at least 1.
        width: Width of the latent, at least 1.
        factors: Factor f of each level i, whose sides are those of the latent over f^i; 2, which
            gives the most and largest levels, where it has none.
    """
    sizes: list[tuple[int, int]] = []
    while not sizes or min(sizes[-1]) > 1:
        number = len(sizes) + 1
        scale = (factors[number - 1] if number <= len(factors) else 2.0) ** number
        sizes.append((max(1, int(height / scale)), max(1, int(width / scale))))
    return sizes


def perturbed_input(noise: torch.Tensor, other: torch.Tensor, strength: float) -> torch.Tensor:
    """Return noise + strength · other noise: what is mixed in, while the target keeps the first.

    It trains the denoiser on inputs that are slightly off, as those of sampling are
    (https://huggingface.co/papers/2301.11706, algorithm 1; 0.1 there).
    """
    return noise + strength * other


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return (p − t)², in float32."""
    return (prediction.float() - target.float()).square()


def pseudo_huber_error(
    prediction: torch.Tensor, target: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Return 2c(√((p − t)² + c²) − c), in float32: squared where errors are far below c, linear
    where they are far above, so that outliers pull less.

    Source: https://huggingface.co/papers/2403.16728, eq. 3, scaled to tend to the squared error.
    """
    squares = squared_error(prediction, target)
    return 2 * threshold * ((squares + threshold**2).sqrt() - threshold)


def masked(errors: torch.Tensor, mask: torch.Tensor, outside: float) -> torch.Tensor:
    """Return the errors, [B, c, h, w], times 1 where `mask`, [B, 1, h, w] in [0, 1], is 1 and
    times `outside` where it is 0.

    Not divided by the mask's area: a pixel counts the same in whichever image it is.
    """
    return errors * (outside + (1 - outside) * mask)


def per_sample(errors: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean error of each sample, [B], times its weight, [B], if there are weights."""
    means = errors.mean(dim=tuple(range(1, errors.ndim)))
    return means if weights is None else means * weights
