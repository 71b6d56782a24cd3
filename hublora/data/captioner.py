"""Generates captions with any captioning model that transformers loads.

BLIP: Li et al. 2022, https://arxiv.org/abs/2201.12086.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.captions import clean
from hublora.errors import DataError
from hublora.quiet import quiet_loading
from hublora.resolution.model_folder import check_names_no_code

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_MODEL = "Salesforce/blip-image-captioning-base"


class Captioner:
    """A captioning model on a device.

    Args:
        folder: Folder with the model's safetensors, processor and tokenizer; no code in it is run.
        device: Name of a torch device.
        max_tokens: Maximum number of tokens in a caption.

    Raises:
        DataError: The folder has no captioning model, or lacks files.
        AdapterError: It names code, or weights that are no safetensors.
    """

    def __init__(self, folder: Path, device: str = "cpu", max_tokens: int = 40) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        check_names_no_code(folder, str(folder))
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with quiet_loading():
                self._processor = AutoProcessor.from_pretrained(folder, **options)
                model = AutoModelForImageTextToText.from_pretrained(
                    folder, use_safetensors=True, **options
                )
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"The captioning model cannot be loaded: {reason}",
                f"Use a BLIP model, such as --model {DEFAULT_MODEL}",
            ) from error
        self._model = model.to(device).eval()
        self._max_tokens = max_tokens

    def describe(self, images: Sequence[Image]) -> list[str]:
        """Return a one-line caption of each image, decoded greedily, so reproducible."""
        import torch

        inputs = self._processor(images=list(images), return_tensors="pt")
        inputs = inputs.to(self._model.device, self._model.dtype)
        with torch.no_grad():
            tokens = self._model.generate(
                **inputs, max_new_tokens=self._max_tokens, do_sample=False
            )
        return [
            clean(text) for text in self._processor.batch_decode(tokens, skip_special_tokens=True)
        ]
