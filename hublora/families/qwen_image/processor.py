"""The processor of Qwen2-VL for images and texts alone; that for videos requires torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen2VLProcessor
from transformers.processing_utils import ProcessorMixin


class ImageTextProcessor(Qwen2VLProcessor):  # type: ignore[misc]
    """A Qwen2VLProcessor without `video_processor`: its parts are the parameters of `__init__`."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer)


def load_processor(folder: Path) -> ImageTextProcessor:
    """Return the processor that a folder of a Qwen2VLProcessor holds."""
    return ImageTextProcessor(
        Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True),
        AutoTokenizer.from_pretrained(folder, local_files_only=True),
    )
