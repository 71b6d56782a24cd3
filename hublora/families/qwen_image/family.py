"""Qwen-Image: two streams, prompts read by Qwen2.5-VL.

Sources: https://huggingface.co/papers/2508.02324; diffusers' `QwenImagePipeline` and
`train_dreambooth_lora_qwen_image.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hublora.families.base import Conditioning, DenoiserInputs, SamplingDefaults
from hublora.families.blocks import Blocks
from hublora.families.flow_transformer import components
from hublora.families.flow_transformer.components import Classes
from hublora.families.flow_transformer.family import FlowTransformer
from hublora.families.flow_transformer.frames import encode_frames
from hublora.families.lora_names import LoraNames
from hublora.families.pipeline import Pipeline
from hublora.families.qwen_image.known_bases import KNOWN_BASES
from hublora.families.qwen_image.lora_names import BLOCKS, NAMES

if TYPE_CHECKING:
    import torch


class QwenImage(FlowTransformer):
    """Qwen-Image; its guidance is classifier-free and needs a negative prompt, at least a space."""

    name = "qwen-image"
    pipeline_classes: tuple[str, ...] = ("QwenImagePipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder",)
    card_tags: tuple[str, ...] = ("qwen-image", "qwen-image-diffusers")
    names: LoraNames = NAMES
    file_markers = ("transformer_blocks.0.img_mod.1.weight", "txt_in.weight")
    file_width = "txt_in.weight"
    known_bases = KNOWN_BASES
    blocks: Blocks = BLOCKS
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "QwenImageTransformer2DModel",
        vae=components.QWEN_VAE,
        text_encoder=(("transformers", "Qwen2_5_VLForConditionalGeneration"),),
        tokenizer=components.QWEN_TOKENIZER,
    )
    usual = SamplingDefaults(num_inference_steps=50, guidance_scale=4.0)
    text_length = 1024
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "encoder_hidden_states": (512, "joint_attention_dim"),
        "encoder_hidden_states_mask": (512,),
    }
    embedding_arguments: ClassVar[Mapping[str, str]] = {
        "encoder_hidden_states": "prompt_embeds",
        "encoder_hidden_states_mask": "prompt_embeds_mask",
    }

    def call_arguments(
        self, pipe: Pipeline, prompt: str, negative_prompt: str, guidance_scale: float
    ) -> dict[str, Any]:
        if guidance_scale <= 1 and not negative_prompt:
            return {"prompt": prompt, "true_cfg_scale": 1.0}
        return {
            "prompt": prompt,
            "negative_prompt": negative_prompt or " ",
            "true_cfg_scale": guidance_scale,
        }

    def encode_images(
        self, pipe: Pipeline, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return encode_frames(pipe, pixels)

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        length = length or self.text_length
        embeds, mask = pipe.encode_prompt(
            list(prompts), device=pipe.text_encoder.device, max_sequence_length=length
        )
        return padded(embeds, mask, length)

    def padded_length(self, pipe: Pipeline, prompts: Sequence[str]) -> int | None:
        """Return the longest prompt's number of tokens after the start of the template: padding is
        masked."""
        texts = [pipe.prompt_template_encode.format(prompt) for prompt in prompts]
        tokens = pipe.tokenizer(texts, truncation=False, verbose=False).input_ids
        start = int(pipe.prompt_template_encode_start_idx)
        return min(max(map(len, tokens)) - start, self.text_length)

    def with_embeddings(
        self, pipe: Pipeline, arguments: Mapping[str, Any], embedded: Mapping[str, Conditioning]
    ) -> dict[str, Any]:
        """Return the arguments, with embeddings as long as their texts."""
        call = super().with_embeddings(pipe, arguments, embedded)
        for prefix, _ in zip(("", "negative_"), self.texts_of_call(arguments), strict=False):
            mask = call[f"{prefix}prompt_embeds_mask"].long()
            length = _shown_length(mask)
            call[f"{prefix}prompt_embeds_mask"] = mask[:, :length]
            call[f"{prefix}prompt_embeds"] = call[f"{prefix}prompt_embeds"][:, :length]
        return call

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        import torch

        noisy, embeds = inputs.noisy, inputs.conditioning["encoder_hidden_states"]
        mask = inputs.conditioning["encoder_hidden_states_mask"].bool()
        length = _shown_length(mask)
        mask = mask[:, :length]
        height, width = noisy.shape[-2:]
        images = (noisy, *inputs.references)
        packed = [pipe._pack_latents(one, *one.shape) for one in images]
        shapes = [(1, one.shape[-2] // 2, one.shape[-1] // 2) for one in images]
        predicted = denoiser(
            hidden_states=torch.cat(packed, dim=1),
            timestep=inputs.levels,
            encoder_hidden_states=embeds[:, :length],
            encoder_hidden_states_mask=None if mask.all() else mask,
            img_shapes=[shapes] * len(noisy),
            return_dict=False,
        )[0][:, : packed[0].shape[1]]
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(predicted, height * scale, width * scale, scale).squeeze(2)


def padded(embeds: torch.Tensor, mask: torch.Tensor | None, length: int) -> Conditioning:
    """Return embeddings, [B, L, D], and their mask, [B, L], in another length of at least L.

    Args:
        embeds: Prompt embeddings.
        mask: 1 where a token is; None is the pipeline's word for "all of them".
        length: Number of tokens.
    """
    from torch.nn.functional import pad

    if mask is None:
        mask = embeds.new_ones(embeds.shape[:2])
    missing = length - embeds.shape[1]
    return {
        "encoder_hidden_states": pad(embeds, (0, 0, 0, missing)),
        "encoder_hidden_states_mask": pad(mask.to(embeds.dtype), (0, missing)),
    }


def _shown_length(mask: torch.Tensor) -> int:
    """Return the number of tokens up to the last one that any row of a mask, [B, L], shows."""
    return int(mask.bool().any(dim=0).nonzero().max()) + 1
