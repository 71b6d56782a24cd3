"""What the denoiser is asked to predict and how errors are weighted: pure functions.

Notation: x clean latents, e noise, a = alphas_cumprod[t] the share of signal variance left.
All latents are [B, c, h, w]; timesteps are [B] integers in [0, T).
"""

from __future__ import annotations

from collections.abc import Callable

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


def offset_noise(noise: torch.Tensor, per_channel: torch.Tensor, strength: float) -> torch.Tensor:
    """Return noise + strength · one value per channel, so that mean brightness is learned too.

    Source: https://www.crosslabs.org/blog/diffusion-with-offset-noise

    Args:
        noise: [B, c, h, w], standard normal.
        per_channel: [B, c, 1, 1], standard normal.
        strength: Usually 0.05 to 0.1.
    """
    return noise + strength * per_channel


def weighted_mse(
    prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean squared error, a scalar in float32; `weights` is [B] or None for all ones."""
    errors = (prediction.float() - target.float()).square()
    if weights is None:
        return errors.mean()
    return (errors.mean(dim=tuple(range(1, errors.ndim))) * weights).mean()


def _mixture(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    alphas = alphas_cumprod[timesteps].view(-1, *[1] * (like.ndim - 1))
    return alphas.sqrt(), (1 - alphas).sqrt()
