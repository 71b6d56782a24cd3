"""Holes: what of an image an inpainting base is to draw, and what it sees around it.

Such a base is given a mask and the latents of the image with grey in place of what the mask
shows. Both are cached for several masks of every crop, since encoding them in every step would be
most of the step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hublora.data.config import DataConfig
from hublora.data.crops import Layout
from hublora.data.examples import Example
from hublora.data.image_batches import batches_of_pixels
from hublora.data.masks import mask_of_row

if TYPE_CHECKING:
    from torch import Tensor

WHOLE = 0.25  # of the masks show all, as those that Stable Diffusion's inpainting base learned from
LEAST = 0.25  # of a side is what a hole takes at least

EncodeImages = Callable[["Tensor"], "tuple[Tensor, Tensor]"]


def holes_of_each(config: DataConfig) -> int:
    """Return how many masks of each crop are cached."""
    return 1 if config.masks else config.hole_variants


def produce_holes(
    examples: Sequence[Example],
    config: DataConfig,
    layout: Layout,
    batch_size: int,
    encode_images: EncodeImages,
) -> Callable[[int], Iterator[Mapping[str, Tensor]]]:
    """Return what yields the masks and surroundings of a layout's rows, mask by mask for each row.

    It yields `hole`, uint8 [n, 1, h', w'], 1 where the base draws, and `around`, [n, C, h', w'],
    the mean of the latents of what is left. A hole is shrunk to the latents' size by taking single
    pixels, as diffusers' pipelines do it.
    """
    import torch

    each = holes_of_each(config)

    def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
        row = first // each
        for pixels in batches_of_pixels(examples, config, layout, row, batch_size):
            rows = range(row, row + len(pixels))
            holes = torch.stack(
                [
                    torch.from_numpy(_hole(examples, config, layout, one, k))
                    for one in rows
                    for k in range(each)
                ]
            )[:, None]
            seen = pixels.repeat_interleave(each, dim=0) * (1 - holes)
            around = torch.cat([encode_images(one)[0] for one in seen.split(batch_size)])
            size = (int(around.shape[-2]), int(around.shape[-1]))
            small = torch.nn.functional.interpolate(holes.float(), size=size)
            yield {"hole": small.to(torch.uint8), "around": around}
            row += len(pixels)

    return produce


def random_hole(size: tuple[int, int], draw: random.Random) -> Any:
    """Return uint8 [h, w]: 1 in a rectangle or an ellipse somewhere, or everywhere."""
    import numpy as np
    from PIL import Image, ImageDraw

    height, width = size
    if draw.random() < WHOLE:
        return np.ones(size, np.uint8)
    sides = [side * draw.uniform(LEAST, 1) for side in (width, height)]
    left, top = (
        draw.uniform(0, whole - side) for whole, side in zip((width, height), sides, strict=True)
    )
    image = Image.new("L", (width, height))
    canvas = ImageDraw.Draw(image)
    paint = canvas.ellipse if draw.random() < 0.5 else canvas.rectangle
    paint((left, top, left + sides[0], top + sides[1]), fill=1)
    return np.array(image)


def _hole(
    examples: Sequence[Example], config: DataConfig, layout: Layout, row: int, number: int
) -> Any:
    """Return uint8 [h, w], 1 where the base draws: what the image's mask shows, or what chance
    says."""
    if config.masks:
        return (mask_of_row(examples, layout, row, layout.size) >= 128).astype("uint8")
    index = layout.of_row(row)[0]
    place = row - layout.first_rows[index]
    seed = f"{config.seed}/{examples[index].name}/{place}/{number}"
    return random_hole(layout.size, random.Random(seed))
