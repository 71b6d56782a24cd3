"""Encoding by Qwen-Image's VAE, which takes videos: an image is one of a single frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hublora.families.pipeline import Pipeline
from hublora.families.vae import latent_deviations

if TYPE_CHECKING:
    import torch


def encode_frames(pipe: Pipeline, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the latents, normalised by channel, [B, c, h, w].

    Args:
        pipe: A pipeline with an `AutoencoderKLQwenImage`.
        pixels: [B, 3, H, W] in [-1, 1].
    """
    vae = pipe.vae
    frames = pixels.to(vae.device, vae.dtype).unsqueeze(2)
    latents = vae.encode(frames).latent_dist
    mean, std = latents.mean.squeeze(2), latents.std.squeeze(2)
    means = mean.new_tensor(vae.config.latents_mean).view(1, -1, 1, 1)
    deviations = mean.new_tensor(latent_deviations(vae)).view(1, -1, 1, 1)
    return (mean - means) / deviations, std / deviations
