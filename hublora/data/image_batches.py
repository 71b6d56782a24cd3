"""Loads, resizes and crops images into batches of pixels, in the order of the cache's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hublora.data.config import DataConfig
from hublora.data.crops import CropPlan
from hublora.data.examples import Example

if TYPE_CHECKING:
    from torch import Tensor


def batches_of_pixels(
    examples: Sequence[Example], config: DataConfig, plan: CropPlan, first: int, batch_size: int
) -> Iterator[Tensor]:
    """Yield float32 [B, 3, h, w] in [-1, 1] of the rows from `first` on.

    Raises:
        DataError: An image changed since it was checked.
    """
    import numpy as np
    import torch

    batch: list[Any] = []
    for pixels in _pixels(examples, config, plan, first):
        batch.append(pixels)
        if len(batch) == batch_size:
            yield torch.from_numpy(np.stack(batch))
            batch = []
    if batch:
        yield torch.from_numpy(np.stack(batch))


def _pixels(
    examples: Sequence[Example], config: DataConfig, plan: CropPlan, first: int
) -> Iterator[Any]:
    """Yield each row from `first` on, decoding and resizing every image once."""
    from hublora.data.image_check import ordered_map
    from hublora.data.images import cut, resize, to_rgb

    if first == plan.rows:
        return
    start = plan.of_row(first)[0]
    indices = range(start, len(examples))

    def load(index: int) -> Any:
        image = to_rgb(examples[index].open())
        return resize(image, plan.size, config.interpolation)

    for index, image in zip(indices, ordered_map(load, indices, config.num_workers), strict=True):
        for row in range(max(first, plan.first_rows[index]), plan.first_rows[index + 1]):
            _, crop, flip = plan.of_row(row)
            yield cut(image, plan.size, crop, flip)
