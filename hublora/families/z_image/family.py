"""Z-Image and Z-Image-Turbo: one stream of image and text tokens, prompts read by Qwen3.

Sources: https://huggingface.co/Tongyi-MAI/Z-Image-Turbo; diffusers' `ZImagePipeline` and
`train_dreambooth_lora_z_image.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hublora.families.base import Conditioning, DenoiserInputs, SamplingDefaults
from hublora.families.blocks import Blocks
from hublora.families.flow_transformer import components
from hublora.families.flow_transformer.components import Classes
from hublora.families.flow_transformer.family import (
    TIMESTEPS,
    FlowTransformer,
    component_config,
    count_chat_tokens,
)
from hublora.families.lora_names import LoraNames
from hublora.families.pipeline import Pipeline
from hublora.families.z_image.known_bases import KNOWN_BASES
from hublora.families.z_image.lora_names import BLOCKS, NAMES

if TYPE_CHECKING:
    import torch

_TURBO_SHIFT = 3.0  # of the scheduler; the base model's is 6


class ZImage(FlowTransformer):
    """Z-Image and Z-Image-Turbo."""

    name = "z-image"
    pipeline_classes: tuple[str, ...] = ("ZImagePipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder",)
    card_tags: tuple[str, ...] = ("z-image",)
    names: LoraNames = NAMES
    file_markers = ("noise_refiner.0.feed_forward.w1.weight", "cap_embedder.1.weight")
    file_width = "cap_embedder.1.weight"
    known_bases = KNOWN_BASES
    chat_template = True
    blocks: Blocks = BLOCKS
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "ZImageTransformer2DModel",
        vae=components.VAE,
        text_encoder=(("transformers", "Qwen3ForCausalLM"), ("transformers", "Qwen3Model")),
        tokenizer=components.QWEN_TOKENIZER,
    )
    # Guidance is counted from 0: 0 turns it off.
    usual = SamplingDefaults(num_inference_steps=50, guidance_scale=5.0)
    usual_distilled = SamplingDefaults(num_inference_steps=9, guidance_scale=0.0)
    text_length = 512
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "prompt_embeds": (512, "cap_feat_dim"),
        "mask": (512,),
    }
    packed_latents = 1
    embedding_arguments: ClassVar[Mapping[str, str]] = {"prompt_embeds": "prompt_embeds"}

    def is_distilled(self, base: str, folder: Path) -> bool:
        scheduler = component_config(folder, "scheduler", "scheduler_config.json")
        return bool(scheduler.get("shift") == _TURBO_SHIFT)

    def scheduler_timestep(self, timestep: float) -> float:
        return (1 - timestep) * TIMESTEPS

    def encode_images(
        self, pipe: Pipeline, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (z − shift) · scale of the mode z of the posterior, [B, c, h, w], and None."""
        return super().encode_images(pipe, pixels)[0], None

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        import torch
        from torch.nn.functional import pad

        length = length or self.text_length
        texts, _ = pipe.encode_prompt(
            list(prompts),  # a copy: the pipeline overwrites it
            device=pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=length,
        )
        rows = [pad(text, (0, 0, 0, length - len(text))) for text in texts]
        counts = torch.tensor([len(text) for text in texts], device=rows[0].device)
        mask = torch.arange(length, device=rows[0].device) < counts[:, None]
        return {"prompt_embeds": torch.stack(rows), "mask": mask.to(rows[0].dtype)}

    def with_embeddings(
        self, pipe: Pipeline, arguments: Mapping[str, Any], embedded: Mapping[str, Conditioning]
    ) -> dict[str, Any]:
        """Return the arguments, with lists of embeddings as long as their texts."""
        call = super().with_embeddings(pipe, arguments, embedded)
        for prefix, text in zip(("", "negative_"), self.texts_of_call(arguments), strict=True):
            shown = embedded[text]["mask"][0].bool()
            call[f"{prefix}prompt_embeds"] = [call[f"{prefix}prompt_embeds"][0][shown]]
        return call

    def padded_length(self, pipe: Pipeline, prompts: Sequence[str]) -> int | None:
        """Return the longest prompt's number of tokens: padding is cut off."""
        return min(max(self.count_tokens(pipe, prompts)), self.text_length)

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        return count_chat_tokens(pipe, prompts, enable_thinking=True)

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        """Return the velocity, [B, c, h, w]; the transformer's time runs from noise to image, and
        so does its prediction."""
        import torch

        conditioning = inputs.conditioning
        texts = [
            text[shown.bool()]
            for text, shown in zip(conditioning["prompt_embeds"], conditioning["mask"], strict=True)
        ]
        frames = list(inputs.noisy.unsqueeze(2).unbind(0))
        times = (TIMESTEPS - inputs.levels * TIMESTEPS) / TIMESTEPS  # rounded as the pipeline's
        predicted = denoiser(frames, times, texts, return_dict=False)[0]
        return -torch.stack(list(predicted)).squeeze(2)
