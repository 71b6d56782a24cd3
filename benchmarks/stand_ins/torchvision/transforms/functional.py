"""torchvision's functions on PIL images, by the same arithmetic, on Pillow and numpy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from torchvision.transforms import InterpolationMode, Normalize, ToTensor


def resize(
    image: Image.Image,
    size: Sequence[int],
    interpolation: InterpolationMode = InterpolationMode.BILINEAR,
) -> Image.Image:
    """Resize to (height, width)."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling[interpolation.name])


def crop(image: Image.Image, top: int, left: int, height: int, width: int) -> Image.Image:
    """Cut a rectangle out."""
    return image.crop((left, top, left + width, top + height))


def center_crop(image: Image.Image, size: Sequence[int]) -> Image.Image:
    """Cut (height, width) out of the middle."""
    height, width = size
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return crop(image, top, left, height, width)


def hflip(image: Image.Image) -> Image.Image:
    """Mirror from left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Return float32 [3, h, w] in [0, 1]."""
    return ToTensor()(image)


def normalize(tensor: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Subtract a mean and divide by a deviation."""
    return Normalize(mean, std)(tensor)
