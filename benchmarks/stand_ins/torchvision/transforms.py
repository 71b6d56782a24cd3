"""torchvision's transforms of PIL pictures, by the same arithmetic, on Pillow and numpy."""

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

    def __call__(self, picture: Any) -> Any:
        for transform in self.transforms:
            picture = transform(picture)
        return picture


class Lambda:
    """Applies a function."""

    def __init__(self, function: Transform) -> None:
        self.function = function

    def __call__(self, picture: Any) -> Any:
        return self.function(picture)


class Resize:
    """Makes the shorter side of a picture `size` pixels long."""

    def __init__(self, size: int, interpolation: InterpolationMode) -> None:
        self.size = size
        self.filter = Image.Resampling[interpolation.name]

    def __call__(self, picture: Image.Image) -> Image.Image:
        shorter, longer = sorted(picture.size)
        if shorter == self.size:
            return picture
        other = int(self.size * longer / shorter)
        wide = picture.width >= picture.height
        return picture.resize((other, self.size) if wide else (self.size, other), self.filter)


class CenterCrop:
    """Cuts a square out of the middle of a picture that covers it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: Image.Image) -> Image.Image:
        left = round((picture.width - self.size) / 2.0)
        top = round((picture.height - self.size) / 2.0)
        return picture.crop((left, top, left + self.size, top + self.size))


class RandomCrop(CenterCrop):
    """Cuts a square out of a random place of a picture that covers it."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        left = random.randint(0, picture.width - self.size)
        top = random.randint(0, picture.height - self.size)
        return picture.crop((left, top, left + self.size, top + self.size))


class RandomHorizontalFlip:
    """Mirrors every other picture."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        mirror = Image.Transpose.FLIP_LEFT_RIGHT
        return picture.transpose(mirror) if random.random() < 0.5 else picture


class ToTensor:
    """Turns an RGB picture into float32 [3, h, w] in [0, 1]."""

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(picture))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Normalize:
    """Subtracts a mean and divides by a deviation."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone().sub_(self.mean).div_(self.std)
