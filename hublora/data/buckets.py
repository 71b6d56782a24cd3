"""Sizes of aspect ratio buckets.

Each has about the area of the square, and sides that are multiples of a step, so that a batch of
any bucket costs as much as a batch of squares. At 1024 pixels these are the sizes that Stable
Diffusion XL was trained at (https://huggingface.co/papers/2307.01952, appendix I).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

Size = tuple[int, int]  # (h, w) in pixels

MIN_AREA = 0.9  # relative to the square's
MAX_RATIO = 4  # of the longer side to the shorter
STEPS = 16  # in a square's side


def default_step(side: int, size_step: int) -> int:
    """Return the step of bucket sides in pixels: a sixteenth of the square's side, 64 at 1024.

    Args:
        side: Side of the square in pixels.
        size_step: Multiple of which sides must be for the base, in pixels.
    """
    return max(side // STEPS // size_step * size_step, size_step)


def bucket_sizes(side: int, step: int) -> list[Size]:
    """Return the bucket sizes (h, w) for a square of `side` pixels, from tall to wide.

    All sides are multiples of `step`, the area is 90 to 100 % of the square's, and the longer side
    is at most four times the shorter. The square itself is always included.
    """
    area = side * side
    sides = range(step, MAX_RATIO * side + 1, step)
    found = {
        (height, width)
        for height in sides
        for width in sides
        if MIN_AREA * area <= height * width <= area
        and max(height, width) <= MAX_RATIO * min(height, width)
    }
    return sorted(found | {(side, side)}, key=lambda size: (size[1] / size[0], size))


def nearest(image: tuple[int, int], sizes: Sequence[Size]) -> Size:
    """Return the size with the nearest aspect ratio; of several, the largest.

    Args:
        image: (width, height) in pixels.
        sizes: Bucket sizes, (h, w) in pixels.
    """
    target = log(image[0] / image[1])

    def key(size: Size) -> tuple[float, int]:
        height, width = size
        return round(abs(log(width / height) - target), 9), -height * width

    return min(sizes, key=key)
