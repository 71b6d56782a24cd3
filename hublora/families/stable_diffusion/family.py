"""Stable Diffusion 1.x and 2.x: one text encoder, a U-Net, epsilon or v-prediction.

Sources: https://huggingface.co/papers/2112.10752; diffusers' `StableDiffusionPipeline` and
`StableDiffusionInpaintPipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from hublora.families.base import Conditioning, DenoiserInputs
from hublora.families.latent_diffusion.family import LatentDiffusion, tokenize
from hublora.families.lora_names import LoraNames
from hublora.families.parameterization import Velocity, discrete_kind
from hublora.families.pipeline import Pipeline
from hublora.families.stable_diffusion.known_bases import KNOWN_BASES, V1, V1_WIDTH
from hublora.families.stable_diffusion.lora_names import NAMES

if TYPE_CHECKING:
    import torch


class StableDiffusion(LatentDiffusion):
    """Stable Diffusion 1.x and 2.x."""

    name = "stable-diffusion"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionPipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder",)
    card_tags: tuple[str, ...] = ("stable-diffusion", "stable-diffusion-diffusers")
    names: LoraNames = NAMES
    known_bases = KNOWN_BASES
    unloaded_components: tuple[str, ...] = ("safety_checker", "feature_extractor")
    load_options: ClassVar = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }

    def architecture(self, pipe: Pipeline) -> str:
        if pipe.unet.config.cross_attention_dim <= V1_WIDTH:
            return f"{V1}/lora"
        if discrete_kind(pipe.scheduler) is Velocity:
            return "stable-diffusion-v2-768-v/lora"
        return "stable-diffusion-v2-512/lora"

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        tokens = tokenize(pipe, pipe.tokenizer, prompts, length).to(pipe.text_encoder.device)
        return {"encoder_hidden_states": pipe.text_encoder(tokens, return_dict=False)[0]}

    def max_tokens(self, pipe: Pipeline) -> int:
        return int(pipe.tokenizer.model_max_length)

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        return denoiser(inputs.noisy, inputs.levels, **inputs.conditioning, return_dict=False)[0]


class StableDiffusionInpainting(StableDiffusion):
    """Stable Diffusion 1.x and 2.x for inpainting
    (https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-inpainting)."""

    name = "stable-diffusion-inpainting"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionInpaintPipeline",)
    file_inpaints = True
    inpainting_base = "stable-diffusion-v1-5/stable-diffusion-inpainting"
