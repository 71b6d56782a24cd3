"""Shapes that images are trained in when they are not all cut to squares.

Each is about as large as the square and a multiple of a step on both sides, so that a batch of one
shape costs what a batch of squares does. At 1024 pixels these are the shapes that Stable Diffusion
XL was trained in (https://huggingface.co/papers/2307.01952, appendix I), each lying and standing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

Size = tuple[int, int]  # (h, w) in pixels

LEAST_AREA = 0.9  # of the square's
MOST_RATIO = 4  # of the longer side to the shorter
STEPS = 16  # of a square's side


def default_step(side: int, size_step: int) -> int:
    """Return what sides are multiples of: a sixteenth of the square's, 64 pixels at 1024.

    Args:
        side: Of the square.
        size_step: What the base needs sides to be a multiple of.
    """
    return max(side // STEPS // size_step * size_step, size_step)


def bucket_sizes(side: int, step: int) -> list[Size]:
    """Return the shapes that there are beside the square of `side`, from tall to wide.

    All sides are multiples of `step`; the area is 90 to 100 % of the square's, and no shape
    is more than four times as long as wide. The square itself is always there.
    """
    area = side * side
    sides = range(step, MOST_RATIO * side + 1, step)
    found = {
        (height, width)
        for height in sides
        for width in sides
        if LEAST_AREA * area <= height * width <= area
        and max(height, width) <= MOST_RATIO * min(height, width)
    }
    return sorted(found | {(side, side)}, key=lambda size: (size[1] / size[0], size))


def nearest(image: tuple[int, int], sizes: Sequence[Size]) -> Size:
    """Return the shape of which the least is cut off; of several such ones the largest.

    Args:
        image: (width, height).
        sizes: (h, w) each.
    """
    wanted = log(image[0] / image[1])

    def key(size: Size) -> tuple[float, int]:
        height, width = size
        return round(abs(log(width / height) - wanted), 9), -height * width

    return min(sizes, key=key)
