"""FLUX.2 klein and dev: latents of 128 channels in patches of 16 pixels.

Sources: https://huggingface.co/black-forest-labs/FLUX.2-dev; diffusers' `Flux2KleinPipeline`,
`Flux2Pipeline` and `train_dreambooth_lora_flux2.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hublora.errors import ConfigError
from hublora.families.base import (
    Conditioning,
    DenoiserInputs,
    FileShapes,
    SamplingDefaults,
)
from hublora.families.blocks import Blocks
from hublora.families.flow_matching import Flow
from hublora.families.flow_transformer import components
from hublora.families.flow_transformer.components import Classes
from hublora.families.flow_transformer.family import (
    FlowTransformer,
    count_chat_tokens,
    no_negative_prompt,
    pipeline_config,
)
from hublora.families.flux.family import guidance_of
from hublora.families.flux2.known_bases import DEV, DEV_BASES, KLEIN_4B, KLEIN_9B, KNOWN_BASES
from hublora.families.flux2.lora_names import BLOCKS, NAMES
from hublora.families.lora_names import LoraNames
from hublora.families.parameterization import Parameterization
from hublora.families.pipeline import Pipeline
from hublora.families.references import References, side_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

_VAE = (("diffusers", "AutoencoderKLFlux2"),)
_DEV_WIDTH, _KLEIN_4B_WIDTH = 15360, 7680  # of the prompt embeddings
_SIDE = 1024  # of the square with as many pixels as a reference has at most
_SMALLEST, _LONGEST = 64, 8  # side in pixels and aspect ratio that the pipeline takes


class Flux2Klein(FlowTransformer):
    """FLUX.2 klein, 4B and 9B, base and distilled; prompts are read by Qwen3."""

    name = "flux2-klein"
    pipeline_classes: tuple[str, ...] = ("Flux2KleinPipeline",)
    text_encoders: tuple[str, ...] = ("text_encoder",)
    card_tags: tuple[str, ...] = ("flux2", "flux2-klein", "flux2-diffusers")
    names: LoraNames = NAMES
    file_markers = (
        "double_blocks.0.img_attn.qkv.weight",
        "double_stream_modulation_img.lin.weight",
    )
    file_width = "txt_in.weight"
    known_bases = KNOWN_BASES
    chat_template = True
    blocks: Blocks = BLOCKS
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "Flux2Transformer2DModel",
        vae=_VAE,
        text_encoder=(("transformers", "Qwen3ForCausalLM"),),
        tokenizer=components.QWEN_TOKENIZER,
    )
    usual = SamplingDefaults(num_inference_steps=50, guidance_scale=4.0)
    usual_distilled = SamplingDefaults(num_inference_steps=4, guidance_scale=1.0)
    references = References(most=4)
    text_length = 512
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "encoder_hidden_states": (512, "joint_attention_dim"),
    }
    latent_pixels = 16
    packed_latents = 1
    # In single blocks the attention's layers are fused with the feed-forward ones.
    targets = (
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"),
    )

    def base_of_file(self, shapes: FileShapes) -> str | None:
        """Return the base model; only FLUX.2 dev is given the guidance scale."""
        is_dev = "guidance_in.in_layer.weight" in shapes
        return super().base_of_file(shapes) if is_dev == (self.known_bases is DEV_BASES) else None

    def architecture(self, pipe: Pipeline) -> str:
        return f"{_architecture(pipe.transformer.config.joint_attention_dim)}/lora"

    def is_distilled(self, base: str, folder: Path) -> bool:
        return bool(pipeline_config(folder).get("is_distilled"))

    def call_arguments(
        self, pipe: Pipeline, prompt: str, negative_prompt: str, guidance_scale: float
    ) -> dict[str, Any]:
        no_negative_prompt("FLUX.2", negative_prompt)
        return {"prompt": prompt, "guidance_scale": guidance_scale}

    def texts_of_call(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the prompt, and the empty one with which base models are guided."""
        guided = arguments["guidance_scale"] > 1
        return (arguments["prompt"], "") if guided else (arguments["prompt"],)

    def parameterization(self, pipe: Pipeline) -> Parameterization:
        return Flow.of_scheduler(pipe.scheduler, patch=1)

    def encode_images(
        self, pipe: Pipeline, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the mode of the posterior in patches, normalised by channel, [B, 4c, h/2, w/2],
        and None."""
        vae = pipe.vae
        return pipe._encode_vae_image(pixels.to(vae.device, vae.dtype), generator=None), None

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        embeds, _ = pipe.encode_prompt(
            list(prompts),
            device=pipe.text_encoder.device,
            max_sequence_length=length or self.text_length,
        )
        return {"encoder_hidden_states": embeds}

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        return count_chat_tokens(pipe, prompts, enable_thinking=False)

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        import torch

        noisy, embeds = inputs.noisy, inputs.conditioning["encoder_hidden_states"]
        packed = [pipe._pack_latents(one) for one in (noisy, *inputs.references)]
        ids = [pipe._prepare_latent_ids(noisy)]
        if inputs.references:  # the same positions in all rows of a batch
            own = pipe._prepare_image_ids([one[:1] for one in inputs.references])
            ids.append(own.expand(len(noisy), -1, -1))
        predicted = denoiser(
            hidden_states=torch.cat(packed, dim=1),
            timestep=inputs.levels,
            guidance=guidance_of(pipe, inputs),
            encoder_hidden_states=embeds,
            txt_ids=pipe._prepare_text_ids(embeds).to(embeds.device),
            img_ids=torch.cat(ids, dim=1).to(noisy.device),
            return_dict=False,
        )[0][:, : packed[0].shape[1]]
        return predicted.permute(0, 2, 1).reshape(noisy.shape)

    def reference_size(self, pipe: Pipeline, size: tuple[int, int], side: int) -> tuple[int, int]:
        """Return the size of a reference: its own up to `side`² pixels, at least 128² and at most
        the pipeline's 1024², in multiples of 16."""
        width, height = size
        area, step = _most_pixels(side), int(pipe.vae_scale_factor) * 2
        if width * height > area:
            scale = math.sqrt(area / (width * height))
            width, height = int(width * scale), int(height * scale)
        width, height = width // step * step, height // step * step
        if min(width, height) < _SMALLEST or max(width / height, height / width) > _LONGEST:
            raise ConfigError(
                f"FLUX.2 takes references of at least {_SMALLEST} pixels a side, of {_LONGEST}:1 "
                f"at most, got {size[0]}×{size[1]} (as {width}×{height}).",
                "Use a larger reference, or one that is less long.",
            )
        return width, height

    def fit_reference(self, pipe: Pipeline, image: Image.Image, side: int) -> Image.Image:
        """Return a reference in its `reference_size`: reduced to the area, then cropped."""
        width, height = self.reference_size(pipe, image.size, side)
        processor, area = pipe.image_processor, _most_pixels(side)
        reduced = processor._resize_if_exceeds_area(image, area)
        cropped: Image.Image = processor._resize_and_crop(reduced, width, height)
        return cropped

    def image_arguments(
        self,
        pipe: Pipeline,
        references: Sequence[Image.Image],
        width: int | None,
        height: int | None,
    ) -> Mapping[str, Any]:
        """Return the arguments; without a size, the pipeline takes that of the first reference."""
        sizes = super().image_arguments(pipe, references, width, height)
        if not references:
            return sizes
        side = side_of(width or _SIDE, height or _SIDE)
        return {**sizes, "image": [self.fit_reference(pipe, one, side) for one in references]}


class Flux2(Flux2Klein):
    """FLUX.2 dev; prompts are read by Mistral 3."""

    name = "flux2"
    known_bases = DEV_BASES
    pipeline_classes: tuple[str, ...] = ("Flux2Pipeline",)
    card_tags: tuple[str, ...] = ("flux2", "flux2-diffusers")
    component_classes: Mapping[str, Classes] = components.pipeline_components(
        "Flux2Transformer2DModel",
        vae=_VAE,
        text_encoder=(("transformers", "Mistral3ForConditionalGeneration"),),
        tokenizer=(("transformers", "PixtralProcessor"), *components.QWEN_TOKENIZER),
    )
    usual = SamplingDefaults(num_inference_steps=50, guidance_scale=4.0)
    references = References(most=10)

    def load(
        self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype], **components: Any
    ) -> Pipeline:
        """Return the pipeline in `folder`; without torchvision, which its processor of images
        requires, with the tokenizer alone: prompts of text need no more."""
        from transformers import AutoTokenizer
        from transformers.utils import is_torchvision_available

        if "tokenizer" not in components and not is_torchvision_available():
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            components = {**components, "tokenizer": tokenizer}
        return super().load(folder, dtype, **components)

    def is_distilled(self, base: str, folder: Path) -> bool:
        return False  # only the guidance is

    def texts_of_call(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        return (arguments["prompt"],)

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        return [
            len(
                pipe.tokenizer.apply_chat_template(
                    format_input(prompts=[prompt], system_message=pipe.system_message),
                    add_generation_prompt=False,
                    tokenize=True,
                    return_dict=True,
                )["input_ids"][0]
            )
            for prompt in prompts
        ]


def _most_pixels(side: int) -> int:
    """Return up to how many pixels a reference keeps its size; in fewer than 128², many would have
    a side that the pipeline does not take."""
    return min(max(side, 2 * _SMALLEST), _SIDE) ** 2


def _architecture(width: int) -> str:
    """Return the modelspec name by the width of the prompt embeddings."""
    if width == _DEV_WIDTH:
        return DEV
    return KLEIN_4B if width <= _KLEIN_4B_WIDTH else KLEIN_9B
