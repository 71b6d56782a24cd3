"""Inpainting masks and masked-image latents for 9-channel U-Nets.

A base that inpaints gets, beside the noisy latents, a mask and the latents of the image with grey
in place of the masked area. Both are cached for several masks of each crop: encoding them anew in
every step would take most of the step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hublora.data.config import DataConfig
from hublora.data.crops import CropPlan
from hublora.data.examples import Example
from hublora.data.image_batches import batches_of_pixels
from hublora.data.masks import mask_of_row

if TYPE_CHECKING:
    from torch import Tensor

FULL_MASK_SHARE = 0.25  # of the masks cover the image, as for Stable Diffusion's inpainting base
MIN_SIDE_SHARE = 0.25  # of the image's sides, for the sides of a random mask

EncodeImages = Callable[["Tensor"], "tuple[Tensor, Tensor | None]"]


def inpaint_masks_per_crop(config: DataConfig) -> int:
    """Return how many inpainting masks of each crop are cached: 1 where images have their own."""
    return 1 if config.masks else config.inpaint_mask_variants


def produce_inpaint_masks(
    examples: Sequence[Example],
    config: DataConfig,
    plan: CropPlan,
    batch_size: int,
    encode_images: EncodeImages,
) -> Callable[[int], Iterator[Mapping[str, Tensor]]]:
    """Return a function that yields the inpainting masks and masked-image latents of all rows.

    It yields `mask`, uint8 [n, 1, h', w'], 1 where the base generates, and `masked_latents`,
    [n, C, h', w'], the mean of the VAE posterior of the image without that area; mask by mask of
    each row. Masks are reduced to the latents' size by taking single pixels, as diffusers does.
    """
    import torch

    count = inpaint_masks_per_crop(config)

    def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
        row = first // count
        for pixels in batches_of_pixels(examples, config, plan, row, batch_size):
            rows = range(row, row + len(pixels))
            masks = torch.stack(
                [
                    torch.from_numpy(_inpaint_mask(examples, config, plan, one, number))
                    for one in rows
                    for number in range(count)
                ]
            )[:, None]
            masked = pixels.repeat_interleave(count, dim=0) * (1 - masks)
            latents = torch.cat([encode_images(one)[0] for one in masked.split(batch_size)])
            size = (int(latents.shape[-2]), int(latents.shape[-1]))
            small = torch.nn.functional.interpolate(masks.float(), size=size)
            yield {"mask": small.to(torch.uint8), "masked_latents": latents}
            row += len(pixels)

    return produce


def random_inpaint_mask(size: tuple[int, int], rng: random.Random) -> Any:
    """Return uint8 [h, w]: 1 in a random rectangle or ellipse, or everywhere."""
    import numpy as np
    from PIL import Image, ImageDraw

    height, width = size
    if rng.random() < FULL_MASK_SHARE:
        return np.ones(size, np.uint8)
    sides = [side * rng.uniform(MIN_SIDE_SHARE, 1) for side in (width, height)]
    left, top = (
        rng.uniform(0, whole - side) for whole, side in zip((width, height), sides, strict=True)
    )
    image = Image.new("L", (width, height))
    canvas = ImageDraw.Draw(image)
    paint = canvas.ellipse if rng.random() < 0.5 else canvas.rectangle
    paint((left, top, left + sides[0], top + sides[1]), fill=1)
    return np.array(image)


def _inpaint_mask(
    examples: Sequence[Example], config: DataConfig, plan: CropPlan, row: int, number: int
) -> Any:
    """Return uint8 [h, w], 1 where the base generates: the image's own mask, or a random one."""
    if config.masks:
        return (mask_of_row(examples, plan, row, plan.size) >= 128).astype("uint8")
    index = plan.of_row(row)[0]
    place = row - plan.first_rows[index]
    seed = f"{config.seed}/{examples[index].name}/{place}/{number}"
    return random_inpaint_mask(plan.size, random.Random(seed))
