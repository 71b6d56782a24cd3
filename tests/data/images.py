"""Images of noise, the same on each call."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def noise_image(seed: int, width: int = 48, height: int = 32) -> Image.Image:
    """Return an image of noise that is the same on each call."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png(seed: int) -> bytes:
    """Return an image of 48×32 pixels as a PNG file."""
    file = io.BytesIO()
    noise_image(seed).save(file, "PNG")
    return file.getvalue()
