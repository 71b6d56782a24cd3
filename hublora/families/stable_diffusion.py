"""Stable Diffusion 1.x and 2.x: one text encoder, a U-Net, epsilon or v-prediction.

Sources: https://huggingface.co/papers/2112.10752; diffusers `StableDiffusionPipeline`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import AdapterError
from hublora.families.base import Conditioning, Diffusion

if TYPE_CHECKING:
    import torch

_PIPELINE_STEP = 8  # in pixels: what diffusers' pipelines accept
_V1_WIDTH = 768  # of CLIP ViT-L, whose embeddings 1.x attends to; 2.x has 1024
_ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x."""

    name = "stable-diffusion"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionPipeline",)
    denoiser = "unet"
    vae = "vae"
    text_encoders: tuple[str, ...] = ("text_encoder",)
    default_targets: Mapping[str, tuple[str, ...]] = {
        "unet": _ATTENTION,
        "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj"),
    }
    kohya_prefixes: Mapping[str, str] = {"unet": "lora_unet", "text_encoder": "lora_te"}
    card_tags: tuple[str, ...] = ("stable-diffusion", "stable-diffusion-diffusers")

    def load(self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype]) -> Any:
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            variant=_variant(folder / "unet"),
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def architecture(self, pipe: Any) -> str:
        if pipe.unet.config.cross_attention_dim <= _V1_WIDTH:
            return "stable-diffusion-v1/lora"
        if pipe.scheduler.config.prediction_type == "v_prediction":
            return "stable-diffusion-v2-768-v/lora"
        return "stable-diffusion-v2-512/lora"

    def resolution(self, pipe: Any) -> int:
        return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)

    def size_step(self, pipe: Any) -> int:
        return math.lcm(int(pipe.vae_scale_factor), _PIPELINE_STEP)  # U-Nets halve odd sides too

    def diffusion(self, pipe: Any) -> Diffusion:
        from diffusers import DDPMScheduler

        config = pipe.scheduler.config
        prediction = config.prediction_type
        if prediction not in ("epsilon", "v_prediction"):
            raise AdapterError(f"The base predicts {prediction!r}, which cannot be trained here.")
        return Diffusion(prediction, DDPMScheduler.from_config(config).alphas_cumprod)

    def encode_images(self, pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vae = pipe.vae
        latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        scale = vae.config.scaling_factor
        return latents.mean * scale, latents.std * scale

    def encode_prompts(self, pipe: Any, prompts: Sequence[str]) -> Conditioning:
        tokens = self._tokenize(pipe, prompts).to(pipe.text_encoder.device)
        return {"encoder_hidden_states": pipe.text_encoder(tokens, return_dict=False)[0]}

    def count_tokens(self, pipe: Any, prompts: Sequence[str]) -> list[int]:
        encoded = pipe.tokenizer(list(prompts), truncation=False, verbose=False).input_ids
        return [len(ids) for ids in encoded]

    def max_tokens(self, pipe: Any) -> int:
        return int(pipe.tokenizer.model_max_length)

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        return denoiser(noisy, timesteps, **conditioning, return_dict=False)[0]

    def _tokenize(self, pipe: Any, prompts: Sequence[str]) -> torch.Tensor:
        return pipe.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=pipe.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids


def _variant(folder: Path) -> str | None:
    """Return "fp16" where a component's weights are only there in half precision."""
    names = [path.name for path in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None
