"""Stable Diffusion XL: two text encoders, pooled embeddings, size and crop conditioning.

Sources: https://huggingface.co/papers/2307.01952; diffusers `StableDiffusionXLPipeline` and
`train_text_to_image_lora_sdxl.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.families.base import Conditioning
from hublora.families.parameterization import Parameterization, discrete_of_scheduler
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


class StableDiffusionXL:
    """Stable Diffusion XL and what was trained from it.

    Its original VAE overflows in float16. Images are therefore encoded in float32 (by whoever
    loads the pipeline), and diffusers decodes in float32 where the VAE says `force_upcast`.
    """

    name = "stable-diffusion-xl"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionXLPipeline",)
    denoiser = "unet"
    vae = "vae"
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    default_targets: Mapping[str, tuple[str, ...]] = {
        "unet": UNET_ATTENTION,
        "text_encoder": TEXT_ATTENTION,
        "text_encoder_2": TEXT_ATTENTION,
    }
    convolutions: Mapping[str, tuple[str, ...]] = {"unet": UNET_CONVOLUTIONS}
    kohya_prefixes: Mapping[str, str] = {
        "unet": "lora_unet",
        "text_encoder": "lora_te1",
        "text_encoder_2": "lora_te2",
    }
    card_tags: tuple[str, ...] = ("stable-diffusion-xl", "stable-diffusion-xl-diffusers")

    def load(self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype]) -> Any:
        import diffusers

        return getattr(diffusers, self.pipeline_classes[0]).from_pretrained(
            folder,
            dtype=dtype,
            variant=variant_of(folder / "unet"),
            use_safetensors=True,
            local_files_only=True,
            add_watermarker=False,  # else images depend on which packages are installed
        )

    def architecture(self, pipe: Any) -> str:
        return "stable-diffusion-xl-v1-base/lora"

    def resolution(self, pipe: Any) -> int:
        return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)

    def size_step(self, pipe: Any) -> int:
        return math.lcm(int(pipe.vae_scale_factor), _PIPELINE_STEP)

    def inpaints(self, pipe: Any) -> bool:
        return inpaints(pipe.unet)

    def parameterization(self, pipe: Any) -> Parameterization:
        return discrete_of_scheduler(pipe.scheduler)

    def encode_images(self, pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return scaled_posterior(pipe.vae, pixels)

    def encode_prompts(self, pipe: Any, prompts: Sequence[str]) -> Conditioning:
        import torch

        hidden = []
        for tokenizer, encoder in (
            (pipe.tokenizer, pipe.text_encoder),
            (pipe.tokenizer_2, pipe.text_encoder_2),
        ):
            tokens = tokenize(pipe, tokenizer, prompts).to(encoder.device)
            encoded = encoder(tokens, output_hidden_states=True)
            hidden.append(encoded.hidden_states[-2])  # what the U-Net was trained on
        return {
            "encoder_hidden_states": torch.cat(hidden, dim=-1),
            "text_embeds": encoded.text_embeds,  # the second encoder's
        }

    def count_tokens(self, pipe: Any, prompts: Sequence[str]) -> list[int]:
        return count_tokens(pipe.tokenizer, prompts)

    def max_tokens(self, pipe: Any) -> int:
        return int(min(pipe.tokenizer.model_max_length, pipe.tokenizer_2.model_max_length))

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
        size_conditioning: torch.Tensor,
    ) -> torch.Tensor:
        # Float32: bfloat16 knows no odd number above 256. The U-Net casts their embedding itself.
        added = {"text_embeds": conditioning["text_embeds"], "time_ids": size_conditioning.float()}
        hidden = conditioning["encoder_hidden_states"]
        return denoiser(noisy, timesteps, hidden, added_cond_kwargs=added, return_dict=False)[0]
