"""Chroma: FLUX.1's layout without pooled prompts, with attention that counts padding less.

Its mask is meant to leave out all padded tokens but the first. In diffusers 0.42.1 it is a float,
which attention adds in place of masking with it: padding has 1/e of its weight, and prompts are
padded to the full length here too, so that what is trained is what the pipeline runs.

Sources: https://huggingface.co/lodestones/Chroma1-HD; diffusers' `ChromaPipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hublora.families.base import Conditioning, DenoiserInputs, SamplingDefaults
from hublora.families.blocks import Blocks
from hublora.families.chroma.known_bases import KNOWN_BASES
from hublora.families.chroma.lora_names import BLOCKS, NAMES
from hublora.families.flow_transformer import components
from hublora.families.flow_transformer.components import Classes
from hublora.families.flow_transformer.family import JOINT_ATTENTION, FlowTransformer
from hublora.families.lora_names import LoraNames
from hublora.families.pipeline import Pipeline

if TYPE_CHECKING:
    import torch


class Chroma(FlowTransformer):
    """Chroma1."""

    name = "chroma"
    pipeline_classes: tuple[str, ...] = ("ChromaPipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder",)
    card_tags: tuple[str, ...] = ("chroma", "chroma-diffusers")
    names: LoraNames = NAMES
    file_markers = (
        "double_blocks.0.img_attn.qkv.weight",
        "distilled_guidance_layer.in_proj.weight",
    )
    file_width = "txt_in.weight"
    known_bases = KNOWN_BASES
    blocks: Blocks = BLOCKS
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "ChromaTransformer2DModel",
        vae=components.VAE,
        text_encoder=components.T5,
        tokenizer=components.T5_TOKENIZER,
    )
    optional_component_classes: Mapping[str, Classes] = {
        "image_encoder": (("transformers", "CLIPVisionModelWithProjection"),),
        "feature_extractor": (("transformers", "CLIPImageProcessor"),),
    }
    usual = SamplingDefaults(num_inference_steps=40, guidance_scale=4.0)
    usual_distilled = SamplingDefaults(num_inference_steps=8, guidance_scale=1.0)
    text_length = 512
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "encoder_hidden_states": (512, "joint_attention_dim"),
        "attention_mask": (512,),
    }
    targets = JOINT_ATTENTION
    embedding_arguments: ClassVar[Mapping[str, str]] = {
        "encoder_hidden_states": "prompt_embeds",
        "attention_mask": "prompt_attention_mask",
    }
    # diffusers 0.42.1 calls the single blocks without the mask then.
    gradient_checkpointing = False

    def is_distilled(self, base: str, folder: Path) -> bool:
        return base.rpartition("/")[2] == "Chroma1-Flash"

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        embeds, _, mask, *_ = pipe.encode_prompt(
            list(prompts),
            device=pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=length or self.text_length,
        )
        return {"encoder_hidden_states": embeds, "attention_mask": mask}

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        noisy, embeds = inputs.noisy, inputs.conditioning["encoder_hidden_states"]
        height, width = noisy.shape[-2:]
        tokens = (height // 2) * (width // 2)
        ids = pipe._prepare_latent_image_ids(
            len(noisy), height // 2, width // 2, noisy.device, noisy.dtype
        )
        mask = pipe._prepare_attention_mask(
            len(noisy), tokens, noisy.dtype, inputs.conditioning["attention_mask"]
        )
        predicted = denoiser(
            hidden_states=pipe._pack_latents(noisy, *noisy.shape),
            timestep=inputs.levels,
            encoder_hidden_states=embeds,
            txt_ids=embeds.new_zeros(embeds.shape[1], 3),
            img_ids=ids,
            attention_mask=mask,
            return_dict=False,
        )[0]
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(predicted, height * scale, width * scale, scale)
