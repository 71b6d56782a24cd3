"""Stable Diffusion XL: two text encoders, pooled embeddings, size and crop conditioning.

Sources: https://huggingface.co/papers/2307.01952; diffusers' `StableDiffusionXLPipeline`,
`StableDiffusionXLInpaintPipeline` and `train_text_to_image_lora_sdxl.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hublora.families.base import Conditioning, DenoiserInputs, LayerInputs
from hublora.families.latent_diffusion.components import XL_COMPONENT_CLASSES, Classes
from hublora.families.latent_diffusion.family import LatentDiffusion, tokenize
from hublora.families.lora_names import LoraNames
from hublora.families.pipeline import Pipeline
from hublora.families.stable_diffusion_xl.known_bases import KNOWN_BASES, XL
from hublora.families.stable_diffusion_xl.lora_names import NAMES

if TYPE_CHECKING:
    import torch


class StableDiffusionXL(LatentDiffusion):
    """Stable Diffusion XL and what was trained from it.

    Its original VAE overflows in float16. Images are therefore encoded in float32 (by whoever
    loads the pipeline), and diffusers decodes in float32 where the VAE says `force_upcast`.
    """

    name = "stable-diffusion-xl"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionXLPipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    card_tags: tuple[str, ...] = ("stable-diffusion-xl", "stable-diffusion-xl-diffusers")
    names: LoraNames = NAMES
    known_bases = KNOWN_BASES
    component_classes: Mapping[str, Classes] = XL_COMPONENT_CLASSES
    embedding_arguments: ClassVar[Mapping[str, str]] = {
        "encoder_hidden_states": "prompt_embeds",
        "text_embeds": "pooled_prompt_embeds",
    }
    weight_decays: Mapping[str, tuple[float, float]] = {"dreambooth": (1e-4, 1e-3)}
    # A watermark would make images depend on which packages are installed.
    load_options: ClassVar = {"add_watermarker": False}

    def architecture(self, pipe: Pipeline) -> str:
        return f"{XL}/lora"

    def architecture_of_layers(self, inputs: LayerInputs) -> str | None:
        if set(inputs) <= set(self.adaptable) and self.text_encoders[1] in inputs:
            return XL  # no other family has two text encoders
        return super().architecture_of_layers(inputs)

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        import torch

        hidden = []
        for tokenizer, encoder in (
            (pipe.tokenizer, pipe.text_encoder),
            (pipe.tokenizer_2, pipe.text_encoder_2),
        ):
            tokens = tokenize(pipe, tokenizer, prompts, length).to(encoder.device)
            encoded = encoder(tokens, output_hidden_states=True)
            hidden.append(encoded.hidden_states[-2])  # the layer that the U-Net was trained on
        return {
            "encoder_hidden_states": torch.cat(hidden, dim=-1),
            "text_embeds": encoded.text_embeds,  # the second encoder's
        }

    def with_embeddings(
        self, pipe: Pipeline, arguments: Mapping[str, Any], embedded: Mapping[str, Conditioning]
    ) -> dict[str, Any]:
        """Return the arguments, with zeros for an empty negative prompt where the pipeline takes
        them."""
        call = super().with_embeddings(pipe, arguments, embedded)
        if not arguments["negative_prompt"] and pipe.config.force_zeros_for_empty_prompt:
            for name in self.embedding_arguments.values():
                call[f"negative_{name}"] = call[f"negative_{name}"] * 0
        return call

    def max_tokens(self, pipe: Pipeline) -> int:
        return int(min(pipe.tokenizer.model_max_length, pipe.tokenizer_2.model_max_length))

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        # Float32: bfloat16 has no odd number above 256. The U-Net casts their embedding itself.
        added = {
            "text_embeds": inputs.conditioning["text_embeds"],
            "time_ids": inputs.size_conditioning.float(),
        }
        return denoiser(
            inputs.noisy,
            inputs.levels,
            inputs.conditioning["encoder_hidden_states"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]


class StableDiffusionXLInpainting(StableDiffusionXL):
    """Stable Diffusion XL for inpainting."""

    name = "stable-diffusion-xl-inpainting"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionXLInpaintPipeline",)
    file_inpaints = True
    inpainting_base = "diffusers/stable-diffusion-xl-1.0-inpainting-0.1"
