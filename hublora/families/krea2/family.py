"""Krea 2, Raw and Turbo: one stream, prompts read from twelve layers of Qwen3-VL.

Sources: https://huggingface.co/krea/Krea-2-Raw; diffusers' `Krea2Pipeline` and
`train_dreambooth_lora_krea2.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hublora.errors import AdapterError
from hublora.families.base import Conditioning, DenoiserInputs, SamplingDefaults
from hublora.families.blocks import Blocks
from hublora.families.flow_transformer import components
from hublora.families.flow_transformer.components import Classes
from hublora.families.flow_transformer.family import FlowTransformer, pipeline_config
from hublora.families.flow_transformer.frames import encode_frames
from hublora.families.krea2.known_bases import KNOWN_BASES
from hublora.families.krea2.lora_names import BLOCKS, NAMES
from hublora.families.lora_names import LoraNames
from hublora.families.pipeline import Pipeline

if TYPE_CHECKING:
    import torch


class Krea2(FlowTransformer):
    """Krea 2; its guidance is counted from 0: 0 turns it off."""

    name = "krea2"
    pipeline_classes: tuple[str, ...] = ("Krea2Pipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder",)
    card_tags: tuple[str, ...] = ("krea2", "krea2-diffusers")
    names: LoraNames = NAMES
    file_markers = ("txtfusion.projector.weight", "blocks.0.attn.wq.weight")
    file_width = "txtmlp.1.weight"
    known_bases = KNOWN_BASES
    blocks: Blocks = BLOCKS
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "Krea2Transformer2DModel",
        vae=components.QWEN_VAE,
        text_encoder=(
            ("transformers", "Qwen3VLModel"),
            ("transformers", "Qwen3VLForConditionalGeneration"),
        ),
        tokenizer=components.QWEN_TOKENIZER,
    )
    usual = SamplingDefaults(num_inference_steps=28, guidance_scale=4.5)
    usual_distilled = SamplingDefaults(num_inference_steps=8, guidance_scale=0.0)
    text_length = 512
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "encoder_hidden_states": (512, "num_text_layers", "text_hidden_dim"),
        "encoder_attention_mask": (512,),
    }
    # What the script of diffusers trains in the blocks.
    targets = (
        *("to_q", "to_k", "to_v", "to_out.0", "to_gate"),
        *("ff.gate", "ff.up", "ff.down"),
    )
    embedding_arguments: ClassVar[Mapping[str, str]] = {
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "prompt_embeds_mask",
    }

    def is_distilled(self, base: str, folder: Path) -> bool:
        return bool(pipeline_config(folder).get("is_distilled"))

    def encode_images(
        self, pipe: Pipeline, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return encode_frames(pipe, pixels)

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        """Return embeddings, [B, L, layers, width], and their mask, [B, L]."""
        _check_select_layers(pipe)
        embeds, mask = pipe.encode_prompt(
            list(prompts),
            device=pipe.text_encoder.device,
            max_sequence_length=length or self.text_length,
        )
        return {
            "encoder_hidden_states": embeds,
            "encoder_attention_mask": mask.to(embeds.dtype),
        }

    def padded_length(self, pipe: Pipeline, prompts: Sequence[str]) -> int | None:
        """Return the longest prompt's number of tokens with the end of the template: padding is
        masked, and takes no positions."""
        texts = [pipe.prompt_template_encode_prefix + prompt for prompt in prompts]
        tokens = pipe.tokenizer(texts, truncation=False, verbose=False).input_ids
        start = int(pipe.prompt_template_encode_start_idx)
        end = int(pipe.prompt_template_encode_num_suffix_tokens)
        return min(max(map(len, tokens)) - start + end, self.text_length)

    def with_embeddings(
        self, pipe: Pipeline, arguments: Mapping[str, Any], embedded: Mapping[str, Conditioning]
    ) -> dict[str, Any]:
        call = super().with_embeddings(pipe, arguments, embedded)
        return {
            name: value.bool() if name.endswith("_mask") else value for name, value in call.items()
        }

    def max_tokens(self, pipe: Pipeline) -> int:
        return self.text_length - int(pipe.prompt_template_encode_num_suffix_tokens)

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        noisy, embeds = inputs.noisy, inputs.conditioning["encoder_hidden_states"]
        height, width = noisy.shape[-2:]
        positions = pipe.prepare_position_ids(
            embeds.shape[1], height // pipe.patch_size, width // pipe.patch_size, noisy.device
        )
        predicted = denoiser(
            hidden_states=pipe._pack_latents(noisy, *noisy.shape),
            encoder_hidden_states=embeds,
            timestep=inputs.levels,
            position_ids=positions,
            encoder_attention_mask=inputs.conditioning["encoder_attention_mask"].bool(),
            return_dict=False,
        )[0]
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(predicted, height * scale, width * scale).squeeze(2)


def _check_select_layers(pipe: Pipeline) -> None:
    """Check that the layers which prompts are read from exist, and are as many as the transformer
    takes.

    Raises:
        AdapterError: They do not, or are not.
    """
    chosen, expected = pipe.text_encoder_select_layers, int(pipe.transformer.config.num_text_layers)
    config = pipe.text_encoder.config
    last = int(getattr(config, "text_config", config).num_hidden_layers)
    if len(chosen) == expected and all(isinstance(n, int) and abs(n) <= last for n in chosen):
        return
    raise AdapterError(
        f"The base's text_encoder_select_layers must be {expected} numbers from -{last} to {last}, "
        f"got {list(chosen)}.",
        "Take another base model, or mend its model_index.json.",
    )
