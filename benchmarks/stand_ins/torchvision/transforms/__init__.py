"""torchvision's transforms of PIL images, by the same arithmetic, on Pillow and numpy."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from PIL import Image

Transform = Callable[[Any], Any]


class InterpolationMode(Enum):
    """Filters of a resize."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class Compose:
    """Applies one transform after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class Lambda:
    """Applies a function."""

    def __init__(self, function: Transform) -> None:
        self.function = function

    def __call__(self, image: Any) -> Any:
        return self.function(image)


class Resize:
    """Makes the shorter side of an image `size` pixels long."""

    def __init__(self, size: int, interpolation: InterpolationMode) -> None:
        self.size = size
        self.filter = Image.Resampling[interpolation.name]

    def __call__(self, image: Image.Image) -> Image.Image:
        shorter, longer = sorted(image.size)
        if shorter == self.size:
            return image
        other = int(self.size * longer / shorter)
        wide = image.width >= image.height
        return image.resize((other, self.size) if wide else (self.size, other), self.filter)


class CenterCrop:
    """Cuts a square out of the middle of an image that covers it."""

    def __init__(self, size: int) -> None:
        self.size = size

    @staticmethod
    def get_params(image: Image.Image, output_size: Sequence[int]) -> tuple[int, int, int, int]:
        """Return top, left, height and width of a random place."""
        height, width = output_size
        top = random.randint(0, image.height - height)
        return top, random.randint(0, image.width - width), height, width

    def __call__(self, image: Image.Image) -> Image.Image:
        left = round((image.width - self.size) / 2.0)
        top = round((image.height - self.size) / 2.0)
        return image.crop((left, top, left + self.size, top + self.size))


class RandomCrop(CenterCrop):
    """Cuts a square out of a random place of an image that covers it."""

    def __call__(self, image: Image.Image) -> Image.Image:
        left = random.randint(0, image.width - self.size)
        top = random.randint(0, image.height - self.size)
        return image.crop((left, top, left + self.size, top + self.size))


class RandomHorizontalFlip:
    """Mirrors an image with a probability."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        mirror = Image.Transpose.FLIP_LEFT_RIGHT
        return image.transpose(mirror) if random.random() < self.p else image


class ToTensor:
    """Turns an RGB image into float32 [3, h, w] in [0, 1]."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Normalize:
    """Subtracts a mean and divides by a deviation."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone().sub_(self.mean).div_(self.std)


from torchvision.transforms import functional  # noqa: E402, F401  (needs the names above)
