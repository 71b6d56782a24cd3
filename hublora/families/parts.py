"""What latent-diffusion families have in common: CLIP prompts, a VAE, a U-Net, a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

UNET_ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
UNET_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")  # of a CLIP text encoder


def tokenize(pipe: Any, tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Return token ids, [B, length], cut or padded to what the text encoder reads.

    A learned token of several vectors becomes all of them, as in the pipeline's own call.
    """
    return tokenizer(
        pipe.maybe_convert_prompt(list(prompts), tokenizer),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def count_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[int]:
    """Return how many tokens each prompt has, markers included, before it is cut."""
    return [len(ids) for ids in tokenizer(list(prompts), truncation=False, verbose=False).input_ids]


def scaled_posterior(vae: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the scaled latents, each [B, c, h, w].

    Args:
        vae: An `AutoencoderKL`.
        pixels: [B, 3, H, W] in [-1, 1].
    """
    latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    scale = vae.config.scaling_factor
    return latents.mean * scale, latents.std * scale


def inpaints(unet: Any) -> bool:
    """Tell whether a U-Net takes a mask and the latents around it besides what it denoises."""
    return int(unet.config.in_channels) == 2 * int(unet.config.out_channels) + 1


def variant_of(folder: Path) -> str | None:
    """Return "fp16" where a component's weights are only there in half precision."""
    names = [path.name for path in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None
