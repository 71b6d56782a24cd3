"""Which variants of each image are cached, and in which row each one lies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from hublora.data.buckets import Size, bucket_sizes, nearest
from hublora.data.config import DataConfig
from hublora.data.examples import Example
from hublora.data.images import Crop, covering_size

# In buckets little sticks out, and crops that differ by less than a latent pixel are no others.
_LEAST_SHIFT = 8


@dataclass(frozen=True)
class Layout:
    """Rows of images: example by example, crop by crop, unmirrored before mirrored.

    Attributes:
        size: (h, w) of every variant in pixels.
        originals: For each example, (width, height) of the whole image in pixels.
        crops: For each example, where it is cut.
        flips: 2 if each crop also comes mirrored, else 1.
        first_rows: For each example, its first row; then the number of rows.
    """

    size: Size
    originals: Sequence[tuple[int, int]]
    crops: Sequence[tuple[Crop, ...]]
    flips: int
    first_rows: Sequence[int]

    @property
    def rows(self) -> int:
        """Number of rows of all examples."""
        return self.first_rows[-1]

    @property
    def variants(self) -> int:
        """Variants of the example that has the most of them."""
        return max(map(len, self.crops)) * self.flips

    def row(self, example: int, variant: int) -> int:
        """Return the row of a variant; images with fewer variants repeat theirs in turn."""
        crop, flip = divmod(variant, self.flips)
        crop %= len(self.crops[example])
        return self.first_rows[example] + crop * self.flips + flip

    def of_row(self, row: int) -> tuple[int, Crop, bool]:
        """Return (example, crop, flipped) of a row."""
        from bisect import bisect_right

        example = bisect_right(self.first_rows, row) - 1
        crop, flip = divmod(row - self.first_rows[example], self.flips)
        return example, self.crops[example][crop], bool(flip)

    def frame(self, row: int) -> tuple[int, int, int, int, int, int]:
        """Return where a row was cut out of its image, in pixels.

        Returns:
            Height and width of the whole image; top and left of the crop in the image once it
            covers `size`, mirrored if the row is; height and width of the crop.
        """
        example, crop, flipped = self.of_row(row)
        width, height = self.originals[example]
        covering_width, covering_height = covering_size(width, height, self.size)
        slack = covering_width - self.size[1]
        left = crop.offset(slack)
        top = crop.offset(covering_height - self.size[0])
        return height, width, top, slack - left if flipped else left, *self.size


@dataclass(frozen=True)
class Bucket:
    """The images that are trained in one shape.

    Attributes:
        members: Which examples, in ascending order.
        layout: Their rows; its example n is member n.
    """

    members: Sequence[int]
    layout: Layout

    @property
    def size(self) -> Size:
        """(h, w) in pixels."""
        return self.layout.size

    def pick(self, examples: Sequence[Example]) -> list[Example]:
        """Return the members among all examples."""
        return [examples[index] for index in self.members]


def arrange(
    examples: Sequence[Example], config: DataConfig, size: Size, bucket_step: int | None = None
) -> list[Bucket]:
    """Return the shapes that `examples` are trained in, and which are in which.

    Args:
        examples: Surveyed.
        config: Its crops and flips.
        size: (h, w) of all images; or of the square that the buckets are as large as.
        bucket_step: What the sides of buckets are multiples of; None puts all into one of `size`.

    Returns:
        Those that are not empty, from tall to wide.
    """
    if bucket_step is None:
        return [Bucket(range(len(examples)), lay_out(examples, config, size))]
    sizes = bucket_sizes(size[0], bucket_step)
    members: dict[Size, list[int]] = {one: [] for one in sizes}
    for index, example in enumerate(examples):
        members[nearest(example.size, sizes)].append(index)
    return [
        Bucket(held, lay_out([examples[index] for index in held], config, one, _LEAST_SHIFT))
        for one, held in members.items()
        if held
    ]


def lay_out(
    examples: Sequence[Example], config: DataConfig, size: Size, least_shift: int | None = None
) -> Layout:
    """Return which crops and flips of `examples` are cached at `size` (h, w).

    An image that has the target's shape has one crop, whatever is configured.

    Args:
        examples: Surveyed.
        config: Its crops and flips.
        size: (h, w) of every variant in pixels.
        least_shift: Pixels that one more crop is worth; None takes all that are configured.
    """
    crops = [_crops(example, config, size, least_shift) for example in examples]
    flips = 2 if config.random_flip else 1
    first_rows = list(accumulate((len(one) * flips for one in crops), initial=0))
    return Layout(size, [example.size for example in examples], crops, flips, first_rows)


def _crops(
    example: Example, config: DataConfig, size: Size, least_shift: int | None
) -> tuple[Crop, ...]:
    """Return one random place in each of `crop_variants` equal parts of the side that sticks out.

    Over the variants each place is as likely as with independent draws, and none is left out.
    """
    width, height = covering_size(*example.size, size)
    slack = max(width - size[1], height - size[0])
    if example.focus is not None and slack:
        return (_crop_around(example.focus, (width, height), size),)
    if config.center_crop or not slack:
        return (Crop(),)
    draw = random.Random(f"{config.seed}/{example.name}")
    count = config.crop_variants
    if least_shift is not None:
        count = min(count, 1 + slack // least_shift)
    return tuple(Crop((part + draw.random()) / count) for part in range(count))


def _crop_around(focus: tuple[float, float], covering: Size, size: Size) -> Crop:
    """Return the crop with the focus in its middle, as far as the image reaches.

    Args:
        focus: (x, y) in [0, 1].
        covering: (width, height) of the image once it covers `size`.
        size: (h, w) of the crop.
    """
    sides = zip(focus, covering, reversed(size), strict=True)
    place, length, window = max(sides, key=lambda side: side[1] - side[2])
    slack = length - window
    offset = min(max(round(place * length - window / 2), 0), slack)
    return Crop((offset + 0.5) / (slack + 1))
