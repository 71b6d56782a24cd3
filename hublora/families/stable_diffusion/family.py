"""Stable Diffusion 1.x and 2.x: one text encoder, a U-Net, epsilon or v-prediction.

Sources: https://huggingface.co/papers/2112.10752; diffusers `StableDiffusionPipeline`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.families.base import Conditioning
from hublora.families.parameterization import (
    Parameterization,
    Velocity,
    discrete_kind,
    discrete_of_scheduler,
)
from hublora.families.parts import (
    TEXT_ATTENTION,
    UNET_ATTENTION,
    UNET_CONVOLUTIONS,
    count_tokens,
    inpaints,
    scaled_posterior,
    tokenize,
    variant_of,
)

if TYPE_CHECKING:
    import torch

_PIPELINE_STEP = 8  # in pixels: what diffusers' pipelines accept
_V1_WIDTH = 768  # of CLIP ViT-L, whose embeddings 1.x attends to; 2.x has 1024


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x."""

    name = "stable-diffusion"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionPipeline",)
    denoiser = "unet"
    vae = "vae"
    text_encoders: tuple[str, ...] = ("text_encoder",)
    default_targets: Mapping[str, tuple[str, ...]] = {
        "unet": UNET_ATTENTION,
        "text_encoder": TEXT_ATTENTION,
    }
    convolutions: Mapping[str, tuple[str, ...]] = {"unet": UNET_CONVOLUTIONS}
    kohya_prefixes: Mapping[str, str] = {"unet": "lora_unet", "text_encoder": "lora_te"}
    card_tags: tuple[str, ...] = ("stable-diffusion", "stable-diffusion-diffusers")

    def load(self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype]) -> Any:
        import diffusers

        return getattr(diffusers, self.pipeline_classes[0]).from_pretrained(
            folder,
            dtype=dtype,
            variant=variant_of(folder / "unet"),
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def architecture(self, pipe: Any) -> str:
        if pipe.unet.config.cross_attention_dim <= _V1_WIDTH:
            return "stable-diffusion-v1/lora"
        if discrete_kind(pipe.scheduler) is Velocity:
            return "stable-diffusion-v2-768-v/lora"
        return "stable-diffusion-v2-512/lora"

    def resolution(self, pipe: Any) -> int:
        return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)

    def size_step(self, pipe: Any) -> int:
        return math.lcm(int(pipe.vae_scale_factor), _PIPELINE_STEP)  # U-Nets halve odd sides too

    def inpaints(self, pipe: Any) -> bool:
        return inpaints(pipe.unet)

    def parameterization(self, pipe: Any) -> Parameterization:
        return discrete_of_scheduler(pipe.scheduler)

    def encode_images(self, pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return scaled_posterior(pipe.vae, pixels)

    def encode_prompts(self, pipe: Any, prompts: Sequence[str]) -> Conditioning:
        tokens = tokenize(pipe, pipe.tokenizer, prompts).to(pipe.text_encoder.device)
        return {"encoder_hidden_states": pipe.text_encoder(tokens, return_dict=False)[0]}

    def count_tokens(self, pipe: Any, prompts: Sequence[str]) -> list[int]:
        return count_tokens(pipe.tokenizer, prompts)

    def max_tokens(self, pipe: Any) -> int:
        return int(pipe.tokenizer.model_max_length)

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
        size_conditioning: torch.Tensor,
    ) -> torch.Tensor:
        return denoiser(noisy, timesteps, **conditioning, return_dict=False)[0]
