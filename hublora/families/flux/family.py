"""FLUX.1 dev, schnell and Krea: two streams, then one; prompts read by T5, pooled by CLIP.

Sources: https://github.com/black-forest-labs/flux; diffusers' `FluxPipeline` and
`train_dreambooth_lora_flux.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hublora.families.base import (
    Conditioning,
    DenoiserInputs,
    FileShapes,
    SamplingDefaults,
)
from hublora.families.blocks import Blocks
from hublora.families.flow_transformer import components
from hublora.families.flow_transformer.components import Classes
from hublora.families.flow_transformer.family import (
    JOINT_ATTENTION,
    FlowTransformer,
    component_config,
)
from hublora.families.flux.known_bases import KNOWN_BASES, SCHNELL, SCHNELL_BASE
from hublora.families.flux.lora_names import BLOCKS, NAMES
from hublora.families.lora_names import LoraNames
from hublora.families.pipeline import Pipeline

if TYPE_CHECKING:
    import torch

_SCHNELL_LENGTH = 256  # tokens


class Flux(FlowTransformer):
    """FLUX.1: dev and Krea are given the guidance scale, schnell needs no guidance."""

    name = "flux"
    pipeline_classes: tuple[str, ...] = ("FluxPipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    card_tags: tuple[str, ...] = ("flux", "flux-diffusers")
    names: LoraNames = NAMES
    file_markers = ("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight")
    file_width = "txt_in.weight"
    known_bases = KNOWN_BASES
    blocks: Blocks = BLOCKS
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "FluxTransformer2DModel",
        vae=components.VAE,
        text_encoder=components.CLIP,
        text_encoder_2=components.T5,
        tokenizer=components.CLIP_TOKENIZER,
        tokenizer_2=components.T5_TOKENIZER,
    )
    optional_component_classes: Mapping[str, Classes] = {
        "image_encoder": (("transformers", "CLIPVisionModelWithProjection"),),
        "feature_extractor": (("transformers", "CLIPImageProcessor"),),
    }
    usual = SamplingDefaults(num_inference_steps=28, guidance_scale=3.5)
    usual_distilled = SamplingDefaults(num_inference_steps=4, guidance_scale=0.0)
    text_length = 512
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "encoder_hidden_states": (512, "joint_attention_dim"),
        "pooled_projections": ("pooled_projection_dim",),
    }
    targets = JOINT_ATTENTION
    adaptable_text_encoders = ("text_encoder",)
    flat_text_encoders: tuple[str, ...] = ("text_encoder",)
    embedding_arguments: ClassVar[Mapping[str, str]] = {
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    }

    def base_of_file(self, shapes: FileShapes) -> str | None:
        found = super().base_of_file(shapes)
        return SCHNELL_BASE if found and "guidance_in.in_layer.weight" not in shapes else found

    def architecture(self, pipe: Pipeline) -> str:
        if pipe.transformer.config.guidance_embeds:
            return super().architecture(pipe)
        return f"{SCHNELL}/lora"

    def is_distilled(self, base: str, folder: Path) -> bool:
        return component_config(folder, "transformer").get("guidance_embeds") is False

    def call_arguments(
        self, pipe: Pipeline, prompt: str, negative_prompt: str, guidance_scale: float
    ) -> dict[str, Any]:
        """Return the arguments; with a negative prompt, the guidance is classifier-free besides."""
        arguments: dict[str, Any] = {"prompt": prompt, "guidance_scale": guidance_scale}
        if negative_prompt:
            arguments |= {"negative_prompt": negative_prompt, "true_cfg_scale": guidance_scale}
        if (length := self.max_tokens(pipe)) != self.text_length:
            arguments["max_sequence_length"] = length
        return arguments

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        embeds, pooled, _ = pipe.encode_prompt(
            list(prompts),
            device=pipe.text_encoder.device,
            max_sequence_length=length or self.max_tokens(pipe),
        )
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        tokens = pipe.tokenizer_2(list(prompts), truncation=False, verbose=False)
        return [len(ids) for ids in tokens.input_ids]

    def max_tokens(self, pipe: Pipeline) -> int:
        return self.text_length if pipe.transformer.config.guidance_embeds else _SCHNELL_LENGTH

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        import torch

        noisy, embeds = inputs.noisy, inputs.conditioning["encoder_hidden_states"]
        height, width = noisy.shape[-2:]
        images = (noisy, *inputs.references)
        packed = [pipe._pack_latents(one, *one.shape) for one in images]
        predicted = denoiser(
            hidden_states=torch.cat(packed, dim=1),
            timestep=inputs.levels,
            guidance=guidance_of(pipe, inputs),
            txt_ids=embeds.new_zeros(embeds.shape[1], 3),
            img_ids=torch.cat([_image_ids(pipe, one, n) for n, one in enumerate(images)]),
            **inputs.conditioning,
            return_dict=False,
        )[0][:, : packed[0].shape[1]]
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(predicted, height * scale, width * scale, scale)


def _image_ids(pipe: Pipeline, latents: torch.Tensor, number: int) -> torch.Tensor:
    """Return the positions, [h/2 · w/2, 3], of the tokens of an image; the generated one has the
    number 0, a reference 1."""
    height, width = latents.shape[-2:]
    ids: torch.Tensor = pipe._prepare_latent_image_ids(
        len(latents), height // 2, width // 2, latents.device, latents.dtype
    )
    ids[..., 0] = number
    return ids


def guidance_of(pipe: Pipeline, inputs: DenoiserInputs) -> torch.Tensor | None:
    """Return the guidance scale, [B], that a guidance-distilled transformer is given; None for
    others, which refuse it."""
    return inputs.guidance if pipe.transformer.config.guidance_embeds else None
