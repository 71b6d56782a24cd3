"""Reference images: what the denoiser of an edit model is given besides noise and prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.families.pipeline import Pipeline

if TYPE_CHECKING:
    from PIL import Image

    from hublora.families.base import Conditioning

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class References:
    """How many reference images the base models of a family take.

    Attributes:
        most: Largest number of references of an image; 0 takes none.
        required: Whether an image needs at least one.
        in_prompts: Whether the text encoder sees the references beside the prompt, so that prompt
            embeddings depend on them.
    """

    most: int = 0
    required: bool = False
    in_prompts: bool = False

    def check(self, count: int, label: str) -> None:
        """Check the number of references of an image.

        Args:
            count: Number of references, at least 0.
            label: The base model, in the message.

        Raises:
            ConfigError: The base model takes fewer, or needs one.
        """
        if count and not self.most:
            raise ConfigError(
                f"{label} takes no reference images.",
                "Leave --reference out; --image starts from an image where the base can.",
            )
        if count > self.most:
            images = "reference image" if self.most == 1 else "reference images"
            raise ConfigError(
                f"{label} takes at most {self.most} {images}, got {count}.",
                f"Give --reference at most {'once' if self.most == 1 else f'{self.most} times'}.",
            )
        if self.required and not count:
            raise ConfigError(
                f"{label} edits images and needs a reference image.", "Add --reference image.png"
            )


class ReferenceCall:
    """How reference images are resized and given to a pipeline's call; part of a family.

    Attributes:
        references: Number of reference images that the base models take; none by default.
    """

    references: References = References()

    def reference_size(self, pipe: Pipeline, size: Size, side: int) -> Size:
        """Return the size that a reference is resized to.

        Args:
            pipe: The pipeline.
            size: Width and height of the reference.
            side: Side of the square with as many pixels as the generated image has.
        """
        return size

    def fit_reference(self, pipe: Pipeline, image: Image.Image, side: int) -> Image.Image:
        """Return a reference in its `reference_size`, as the pipeline resizes it."""
        width, height = self.reference_size(pipe, image.size, side)
        resized: Image.Image = pipe.image_processor.resize(image, height, width)
        return resized

    def image_arguments(
        self,
        pipe: Pipeline,
        references: Sequence[Image.Image],
        width: int | None,
        height: int | None,
    ) -> Mapping[str, Any]:
        """Return the arguments of the pipeline's call for references and size; a side that is None
        is left to the pipeline."""
        sides = {"width": width, "height": height}
        return {name: side for name, side in sides.items() if side is not None}

    def encode_instruction(
        self,
        pipe: Pipeline,
        prompt: str,
        references: Sequence[Image.Image],
        length: int | None = None,
    ) -> Conditioning:
        """Raise: the text encoder of most families sees no references."""
        raise NotImplementedError("references.in_prompts is False")

    def count_instruction_tokens(
        self, pipe: Pipeline, prompts: Sequence[str], references: Sequence[Size]
    ) -> list[int]:
        """Raise: the text encoder of most families sees no references."""
        raise NotImplementedError("references.in_prompts is False")


def side_of(width: int, height: int) -> int:
    """Return the side of the square with as many pixels as an image."""
    return round(math.sqrt(width * height))
