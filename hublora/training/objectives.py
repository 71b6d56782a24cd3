"""What the denoiser is asked to predict and how errors are weighted: pure functions.

Notation: x clean latents, e noise, a = alphas_cumprod[t] the share of signal variance left.
All latents are [B, c, h, w]; timesteps are [B] integers in [0, T).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def add_noise(
    clean: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Return √a·x + √(1−a)·e (DDPM, https://huggingface.co/papers/2006.11239, eq. 4)."""
    signal, spread = _mixture(alphas_cumprod, timesteps, clean)
    return signal * clean + spread * noise


def epsilon_target(
    clean: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Return the noise itself (DDPM, eq. 14)."""
    return noise


def velocity_target(
    clean: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Return v = √a·e − √(1−a)·x (https://huggingface.co/papers/2202.00512, appendix D)."""
    signal, spread = _mixture(alphas_cumprod, timesteps, clean)
    return signal * noise - spread * clean


Target = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

TARGETS: dict[str, Target] = {"epsilon": epsilon_target, "v_prediction": velocity_target}


def signal_to_noise(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Return SNR = a / (1−a), [B], in [0, ∞)."""
    alphas = alphas_cumprod[timesteps]
    return alphas / (1 - alphas)


def min_snr_weight(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, gamma: float, prediction: str
) -> torch.Tensor:
    """Return the Min-SNR-γ weights, [B], in (0, 1].

    min(SNR, γ)/SNR for epsilon and min(SNR, γ)/(SNR+1) for velocity: the weight min(SNR, γ) of the
    x-prediction (https://huggingface.co/papers/2303.09556, section 3.4) carried over to each
    target. At zero terminal SNR the epsilon weight tends to 1.
    """
    snr = signal_to_noise(alphas_cumprod, timesteps)
    clipped = snr.clamp(max=gamma)
    if prediction == "v_prediction":
        return clipped / (snr + 1)
    return torch.where(snr > 0, clipped / snr.clamp(min=1e-20), torch.ones_like(snr))


def debiased_weight(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, prediction: str
) -> torch.Tensor:
    """Return the weights of debiased estimation, [B], in [0, ∞).

    1/√SNR for epsilon (https://huggingface.co/papers/2310.08442, section 3.3), which is √SNR on the
    x-prediction's error, and hence √SNR/(SNR+1) for velocity. At zero terminal SNR the noise is the
    input itself and the weight of predicting it 0.
    """
    snr = signal_to_noise(alphas_cumprod, timesteps)
    if prediction == "v_prediction":
        return snr.sqrt() / (snr + 1)
    return torch.where(snr > 0, snr.clamp(min=1e-20).rsqrt(), torch.zeros_like(snr))


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
    """Return noise with coarser noise laid over it, each sample scaled back to variance 1.

    Σ_i discount^i · upsample(level_i), the noise itself being level 0; so that large shapes are
    learned too. Source: https://wandb.ai/johnowhitaker/multires_noise/reports/--VmlldzozNjYyOTU2

    Args:
        noise: [B, c, h, w], standard normal.
        levels: Coarser and coarser, each [B, c, h_i, w_i], standard normal.
        discount: In [0, 1); 0.3 is usual.
    """
    size = noise.shape[-2:]
    for number, level in enumerate(levels, start=1):
        coarse = torch.nn.functional.interpolate(level, size=size, mode="bilinear")
        noise = noise + discount**number * coarse
    return noise / noise.std(dim=(1, 2, 3), keepdim=True)


def pyramid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return height and width of each coarser level, halved until a single value is left."""
    sizes = []
    while height > 1 or width > 1:
        height, width = max(1, height // 2), max(1, width // 2)
        sizes.append((height, width))
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


def _mixture(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    alphas = alphas_cumprod[timesteps].view(-1, *[1] * (like.ndim - 1))
    return alphas.sqrt(), (1 - alphas).sqrt()
