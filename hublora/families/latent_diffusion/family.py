"""The base class of families with CLIP prompts, a VAE, a U-Net and a DDPM-like scheduler.

Source: https://huggingface.co/papers/2112.10752.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hublora.families.base import FileShapes, LayerInputs, SamplingDefaults
from hublora.families.blocks import Blocks
from hublora.families.embedded_call import TextCall
from hublora.families.known_bases import KnownBases
from hublora.families.latent_diffusion.blocks import UNET_BLOCKS
from hublora.families.latent_diffusion.components import (
    COMPONENT_CLASSES,
    OPTIONAL_COMPONENT_CLASSES,
    Classes,
)
from hublora.families.lora_names import LoraNames
from hublora.families.parameterization import Parameterization, discrete_of_scheduler
from hublora.families.pipeline import Pipeline
from hublora.families.references import ReferenceCall
from hublora.families.vae import latent_deviations, latent_scale

if TYPE_CHECKING:
    import torch

UNET_ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
UNET_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")

_PIPELINE_STEP = 8  # in pixels: what diffusers' pipelines accept
_INPAINTING_CHANNELS = 9
_SIZE_EMBEDDING = "label_emb.0.0.weight"  # of sizes and pooled prompts, which only SDXL has
_TEXT_INPUTS = ("attn2.to_k", "attn2.to_v", "attn2_to_k", "attn2_to_v")


class LatentDiffusion(TextCall, ReferenceCall):
    """A family whose denoiser is diffusers' `UNet2DConditionModel`.

    Attributes:
        load_options: Further arguments of the pipeline's `from_pretrained`.
        file_inpaints: Whether the denoiser takes a mask and the latents of a masked image too.
        inpainting_base: Hub id of the published base model for inpainting.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    card_tags: tuple[str, ...]
    text_encoders: tuple[str, ...]
    names: LoraNames
    known_bases: KnownBases
    load_options: ClassVar[Mapping[str, Any]]
    file_inpaints: ClassVar[bool] = False
    inpainting_base: ClassVar[str] = ""

    flat_text_encoders: tuple[str, ...] = ("text_encoder",)
    denoiser = "unet"
    vae = "vae"
    convolutions: Mapping[str, tuple[str, ...]] = {"unet": UNET_CONVOLUTIONS}
    component_classes: Mapping[str, Classes] = COMPONENT_CLASSES
    optional_component_classes: Mapping[str, Classes] = OPTIONAL_COMPONENT_CLASSES
    unloaded_components: tuple[str, ...] = ("safety_checker",)
    half_dtype: Literal["float16", "bfloat16"] = "float16"
    weight_decays: Mapping[str, tuple[float, float]] = {}
    flow_matching = False
    gradient_checkpointing = True
    takes_controlnets = True
    whole_files = True
    one_file = False
    autocast = True
    chat_template = False
    blocks: Blocks = UNET_BLOCKS

    @property
    def adaptable(self) -> tuple[str, ...]:
        """The denoiser and the text encoders."""
        return (self.denoiser, *self.text_encoders)

    @property
    def default_targets(self) -> Mapping[str, tuple[str, ...]]:
        """The attention layers."""
        return {self.denoiser: UNET_ATTENTION, **dict.fromkeys(self.text_encoders, CLIP_ATTENTION)}

    def load(
        self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype], **components: Any
    ) -> Pipeline:
        import diffusers

        pipe: Pipeline = getattr(diffusers, self.pipeline_classes[0]).from_pretrained(
            folder,
            dtype=dtype,
            variant=_variant_of(folder / self.denoiser),
            use_safetensors=True,
            local_files_only=True,
            **{**self.load_options, **components},
        )
        return pipe

    def base_of_file(self, shapes: FileShapes) -> str | None:
        """Return the base model by the width of the prompt embeddings."""
        first = shapes.get("input_blocks.0.0.weight")
        if first is None or len(first) != 4 or "out.2.weight" not in shapes:
            return None
        inpaints, is_xl = first[1] == _INPAINTING_CHANNELS, _SIZE_EMBEDDING in shapes
        if (inpaints, is_xl) != (self.file_inpaints, len(self.text_encoders) > 1):
            return None
        if inpaints:
            return self.inpainting_base
        sides = (one[1] for name, one in shapes.items() if name.endswith("attn2.to_k.weight"))
        return self.known_bases.file_bases.get(next(sides, 0), "")

    def architecture_of_layers(self, inputs: LayerInputs) -> str | None:
        """Return the modelspec name by the width of the prompt embeddings that the U-Net's
        cross-attention reads."""
        if not set(inputs) <= set(self.adaptable):
            return None
        for layer, sides in inputs.get(self.denoiser, {}).items():
            if layer.endswith(_TEXT_INPUTS):
                return self.known_bases.text_widths.get(sides[0])
        return None

    def resolution(self, pipe: Pipeline) -> int:
        return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)

    def size_step(self, pipe: Pipeline) -> int:
        return math.lcm(int(pipe.vae_scale_factor), _PIPELINE_STEP)  # U-Nets halve odd sides too

    def inpaints(self, pipe: Pipeline) -> bool:
        config = pipe.unet.config
        return int(config.in_channels) == 2 * int(config.out_channels) + 1

    def is_distilled(self, base: str, folder: Path) -> bool:
        return False  # its distilled base models say nothing of it in their files

    def sampling(self, base: str, folder: Path) -> SamplingDefaults:
        return SamplingDefaults(num_inference_steps=30, guidance_scale=7.5)

    def parameterization(self, pipe: Pipeline) -> Parameterization:
        return discrete_of_scheduler(pipe.scheduler)

    def scheduler_timestep(self, timestep: float) -> float:
        return timestep

    def encode_images(
        self, pipe: Pipeline, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mean and standard deviation of the scaled latents, each [B, c, h, w].

        A VAE that states `latents_mean` and `latents_std` is normalised with them by channel, as
        its pipeline undoes it before decoding.
        """
        vae = pipe.vae
        latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        mean, scale = latents.mean, latent_scale(vae)
        means = vae.config.get("latents_mean")
        if means is not None and vae.config.get("latents_std") is not None:
            mean = mean - mean.new_tensor(means).view(1, -1, 1, 1)
            scale = scale / mean.new_tensor(latent_deviations(vae)).view(1, -1, 1, 1)
        return mean * scale, latents.std * scale

    def padded_length(self, pipe: Pipeline, prompts: Sequence[str]) -> int | None:
        return None

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        tokens = pipe.tokenizer(list(prompts), truncation=False, verbose=False)
        return [len(ids) for ids in tokens.input_ids]


def tokenize(
    pipe: Pipeline, tokenizer: Any, prompts: Sequence[str], length: int | None = None
) -> torch.Tensor:
    """Return token ids, [B, length], truncated or padded.

    A learned token of several vectors becomes all of them, as in the pipeline's own call.

    Args:
        pipe: The pipeline.
        tokenizer: One of its tokenizers.
        prompts: B prompts.
        length: Tokens with their markers; None is as many as the text encoder reads.
    """
    return tokenizer(
        pipe.maybe_convert_prompt(list(prompts), tokenizer),
        padding="max_length",
        max_length=length or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def _variant_of(folder: Path) -> str | None:
    """Return "fp16" where a component has weights in half precision only."""
    names = [path.name for path in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None
