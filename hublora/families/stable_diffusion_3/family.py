"""Stable Diffusion 3 and 3.5: a transformer with joint attention, read by two CLIPs and T5.

Sources: https://huggingface.co/papers/2403.03206; diffusers' `StableDiffusion3Pipeline` and
`train_dreambooth_lora_sd3.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

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
    TIMESTEPS,
    FlowTransformer,
)
from hublora.families.lora_names import LoraNames
from hublora.families.pipeline import Pipeline
from hublora.families.stable_diffusion_3.known_bases import (
    KNOWN_BASES,
    LARGE_35,
    MEDIUM,
    MEDIUM_35,
)
from hublora.families.stable_diffusion_3.lora_names import BLOCKS, NAMES

if TYPE_CHECKING:
    import torch


_LARGE_LAYERS = 38  # of 3.5 large; the medium ones have 24


class StableDiffusion3(FlowTransformer):
    """Stable Diffusion 3 and 3.5; the T5 encoder may be missing, and counts as zeros then."""

    name = "stable-diffusion-3"
    pipeline_classes: tuple[str, ...] = ("StableDiffusion3Pipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2", "text_encoder_3")
    card_tags: tuple[str, ...] = ("sd3", "sd3-diffusers")
    names: LoraNames = NAMES
    file_markers = ("joint_blocks.0.x_block.attn.qkv.weight",)
    file_width = "context_embedder.weight"
    known_bases = KNOWN_BASES
    blocks: Blocks = BLOCKS
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "SD3Transformer2DModel",
        vae=components.VAE,
        text_encoder=components.CLIP,
        text_encoder_2=components.CLIP,
        tokenizer=components.CLIP_TOKENIZER,
        tokenizer_2=components.CLIP_TOKENIZER,
    )
    optional_component_classes: Mapping[str, Classes] = {
        "text_encoder_3": components.T5,
        "tokenizer_3": components.T5_TOKENIZER,
        "image_encoder": (("transformers", "SiglipVisionModel"),),
        "feature_extractor": (("transformers", "SiglipImageProcessor"),),
    }
    usual = SamplingDefaults(num_inference_steps=28, guidance_scale=7.0)
    usual_distilled = SamplingDefaults(num_inference_steps=4, guidance_scale=0.0)
    text_length = 256
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "encoder_hidden_states": (77 + 256, "joint_attention_dim"),
        "pooled_projections": ("pooled_projection_dim",),
    }
    packed_latents = 1
    targets = JOINT_ATTENTION
    adaptable_text_encoders = ("text_encoder", "text_encoder_2")
    embedding_arguments: ClassVar[Mapping[str, str]] = {
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    }

    def base_of_file(self, shapes: FileShapes) -> str | None:
        """Return the base model by the number of blocks and whether some attend twice."""
        found = super().base_of_file(shapes)
        if found and f"joint_blocks.{_LARGE_LAYERS - 1}.x_block.attn.qkv.weight" in shapes:
            return "stabilityai/stable-diffusion-3.5-large"
        if found and "joint_blocks.0.x_block.attn2.qkv.weight" in shapes:
            return "stabilityai/stable-diffusion-3.5-medium"
        return found

    def architecture(self, pipe: Pipeline) -> str:
        config = pipe.transformer.config
        if config.num_layers >= _LARGE_LAYERS:
            return f"{LARGE_35}/lora"
        return f"{MEDIUM_35 if config.dual_attention_layers else MEDIUM}/lora"

    def is_distilled(self, base: str, folder: Path) -> bool:
        return base.rpartition("/")[2] == "stable-diffusion-3.5-large-turbo"

    def scheduler_timestep(self, timestep: float) -> float:
        return timestep

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        embeds, _, pooled, _ = pipe.encode_prompt(
            list(prompts),
            prompt_2=None,
            prompt_3=None,
            device=pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=length or self.text_length,
        )
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        """Return the number of T5's tokens, of CLIP's where T5 is missing."""
        tokens = (pipe.tokenizer_3 or pipe.tokenizer)(list(prompts), truncation=False)
        return [len(ids) for ids in tokens.input_ids]

    def max_tokens(self, pipe: Pipeline) -> int:
        return self.text_length if pipe.tokenizer_3 else int(pipe.tokenizer.model_max_length)

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        return denoiser(
            hidden_states=inputs.noisy,
            timestep=inputs.levels * TIMESTEPS,
            **inputs.conditioning,
            return_dict=False,
        )[0]
