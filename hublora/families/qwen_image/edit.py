"""Qwen-Image-Edit: the latents of references beside the noise, and a text encoder that sees them.

Sources: https://huggingface.co/papers/2508.02324; diffusers' `QwenImageEditPipeline` and
`QwenImageEditPlusPipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.families.base import Conditioning, FileShapes, LayerInputs, SamplingDefaults
from hublora.families.flow_transformer.components import Classes
from hublora.families.pipeline import Pipeline
from hublora.families.qwen_image.family import QwenImage, padded
from hublora.families.qwen_image.known_bases import EDIT_BASES, EDIT_PLUS_BASES
from hublora.families.references import References, Size

if TYPE_CHECKING:
    import torch
    from PIL import Image

_AREA = 1024 * 1024  # pixels of a reference in QwenImageEditPipeline
_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


class QwenImageEdit(QwenImage):
    """Qwen-Image-Edit: one reference, which the text encoder sees in the size of its latents.

    References always have the pipeline's own size, whatever the size of the generated image.
    """

    name = "qwen-image-edit"
    pipeline_classes: tuple[str, ...] = ("QwenImageEditPipeline",)
    card_tags: tuple[str, ...] = ("qwen-image", "qwen-image-edit", "qwen-image-diffusers")
    known_bases = EDIT_BASES
    component_classes: Mapping[str, Classes] = {
        **QwenImage.component_classes,
        "processor": (("transformers", "Qwen2VLProcessor"),),
    }
    references = References(most=1, required=True, in_prompts=True)
    text_length = 2048  # of the 4096 positions, which a reference takes up to 1,400 of

    def base_of_file(self, shapes: FileShapes) -> str | None:
        return None  # its names and shapes are those of Qwen-Image

    def architecture_of_layers(self, inputs: LayerInputs) -> str | None:
        return None  # they are those of Qwen-Image

    def load(
        self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype], **components: Any
    ) -> Pipeline:
        """Return the pipeline in `folder`; without torchvision, which the processor of videos
        requires, with a processor of images alone."""
        from transformers.utils import is_torchvision_available

        if is_torchvision_available():
            return super().load(folder, dtype, **components)
        from hublora.families.qwen_image.processor import load_processor

        processor = load_processor(folder / "processor")
        return super().load(folder, dtype, processor=processor, **components)

    def reference_size(self, pipe: Pipeline, size: Size, side: int) -> Size:
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit

        width, height, _ = edit.calculate_dimensions(_AREA, size[0] / size[1])
        return int(width), int(height)

    def image_arguments(
        self,
        pipe: Pipeline,
        references: Sequence[Image.Image],
        width: int | None,
        height: int | None,
    ) -> Mapping[str, Any]:
        """Return the arguments; without a size, the pipeline takes that of the reference."""
        sizes = super().image_arguments(pipe, references, width, height)
        return {**sizes, "image": references[0]}

    def encode_instruction(
        self,
        pipe: Pipeline,
        prompt: str,
        references: Sequence[Image.Image],
        length: int | None = None,
    ) -> Conditioning:
        embeds, mask = pipe.encode_prompt(
            [prompt],
            image=self._seen(pipe, references),
            device=pipe.text_encoder.device,
        )
        return padded(embeds, mask, length or embeds.shape[1])

    def count_instruction_tokens(
        self, pipe: Pipeline, prompts: Sequence[str], references: Sequence[Size]
    ) -> list[int]:
        processor = pipe.processor.image_processor
        images = 0
        for size in references:
            width, height = self._seen_size(pipe, size)
            patches = processor.get_number_of_image_patches(height, width, {})
            images += patches // processor.merge_size**2 - 1  # one stands in the text
        texts = [self._text(pipe, prompt, len(references)) for prompt in prompts]
        dropped = pipe.prompt_template_encode_start_idx
        return [len(ids) - dropped + images for ids in pipe.processor.tokenizer(texts).input_ids]

    def _seen(self, pipe: Pipeline, references: Sequence[Image.Image]) -> Any:
        """Return what the text encoder sees of the references."""
        return self.fit_reference(pipe, references[0], 0)

    def _seen_size(self, pipe: Pipeline, size: Size) -> Size:
        return self.reference_size(pipe, size, 0)

    def _text(self, pipe: Pipeline, prompt: str, references: int) -> str:
        """Return what the text encoder reads, with a token in place of each reference."""
        return str(pipe.prompt_template_encode).format(prompt)


class QwenImageEditPlus(QwenImageEdit):
    """Qwen-Image-Edit 2509 and 2511: up to three references, which the text encoder sees small."""

    name = "qwen-image-edit-plus"
    pipeline_classes: tuple[str, ...] = ("QwenImageEditPlusPipeline",)
    known_bases = EDIT_PLUS_BASES
    references = References(most=3, required=True, in_prompts=True)
    usual = SamplingDefaults(num_inference_steps=40, guidance_scale=4.0)

    def reference_size(self, pipe: Pipeline, size: Size, side: int) -> Size:
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

        width, height = plus.calculate_dimensions(plus.VAE_IMAGE_SIZE, size[0] / size[1])
        return int(width), int(height)

    def image_arguments(
        self,
        pipe: Pipeline,
        references: Sequence[Image.Image],
        width: int | None,
        height: int | None,
    ) -> Mapping[str, Any]:
        """Return the arguments; without a size, the pipeline takes that of the last reference."""
        sizes = super().image_arguments(pipe, references, width, height)
        return {**sizes, "image": list(references)}

    def _seen(self, pipe: Pipeline, references: Sequence[Image.Image]) -> Any:
        sizes = [self._seen_size(pipe, one.size) for one in references]
        return [
            pipe.image_processor.resize(image, height, width)
            for image, (width, height) in zip(references, sizes, strict=True)
        ]

    def _seen_size(self, pipe: Pipeline, size: Size) -> Size:
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

        width, height = plus.calculate_dimensions(plus.CONDITION_IMAGE_SIZE, size[0] / size[1])
        return int(width), int(height)

    def _text(self, pipe: Pipeline, prompt: str, references: int) -> str:
        images = "".join(f"Picture {number + 1}: {_IMAGE}" for number in range(references))
        return str(pipe.prompt_template_encode).format(images + prompt)
