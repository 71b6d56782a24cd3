"""Crops and flips of each image, and the rows of the cache that they are stored in."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from hublora.data.buckets import Size, bucket_sizes, nearest
from hublora.data.config import DataConfig
from hublora.data.examples import Example
from hublora.data.images import Crop, covering_size
from hublora.data.references import cropped_size

# Width and height of a reference image in pixels, and side of the square with as many pixels as its
# image -> width and height in which it is encoded.
ReferenceSize = Callable[[Size, int], Size]

Resolution = tuple[Size, int | None]  # size of the square, and step of bucket sides

# In buckets little is cut off, and crops that differ by less than a latent pixel are the same.
_MIN_SHIFT = 8  # pixels


@dataclass(frozen=True)
class CropPlan:
    """Crops and flips in the order of their rows: by example, crop, and unmirrored first.

    Attributes:
        size: (h, w) of all crops in pixels.
        originals: (width, height) of each example's whole image in pixels.
        crops: Crops of each example, at least one.
        flips: 2 if each crop is cached mirrored too, else 1.
        first_rows: First row of each example, then the total number of rows.
    """

    size: Size
    originals: Sequence[tuple[int, int]]
    crops: Sequence[tuple[Crop, ...]]
    flips: int
    first_rows: Sequence[int]

    @property
    def rows(self) -> int:
        """Total number of rows."""
        return self.first_rows[-1]

    @property
    def variants(self) -> int:
        """Largest number of variants of an example."""
        return max(map(len, self.crops)) * self.flips

    def row(self, example: int, variant: int) -> int:
        """Return the row of a variant, taken modulo the example's number of variants."""
        crop, flip = divmod(variant, self.flips)
        crop %= len(self.crops[example])
        return self.first_rows[example] + crop * self.flips + flip

    def of_row(self, row: int) -> tuple[int, Crop, bool]:
        """Return (example, crop, flipped) of a row."""
        from bisect import bisect_right

        example = bisect_right(self.first_rows, row) - 1
        crop, flip = divmod(row - self.first_rows[example], self.flips)
        return example, self.crops[example][crop], bool(flip)

    def size_conditioning(self, row: int) -> tuple[int, int, int, int, int, int]:
        """Return SDXL's size conditioning of a row, in pixels.

        Returns:
            Height and width of the original image; top and left of the crop in the resized
            image, which is mirrored if the row is; height and width of the crop.
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
    """The images that are trained at one size.

    Attributes:
        members: Indices of the examples, ascending.
        plan: Crops and flips; example n of the plan is member n.
        resolution: Number of the resolution, from 0 for the smallest.
        references: (width, height) in pixels in which the references of each example are encoded.
    """

    members: Sequence[int]
    plan: CropPlan
    resolution: int = 0
    references: tuple[Size, ...] = ()

    @property
    def size(self) -> Size:
        """(h, w) in pixels."""
        return self.plan.size

    def pick(self, examples: Sequence[Example]) -> list[Example]:
        """Return the bucket's examples out of all examples."""
        return [examples[index] for index in self.members]


def assign_buckets(
    examples: Sequence[Example],
    config: DataConfig,
    size: Size,
    bucket_step: int | None = None,
    smaller: Sequence[Resolution] = (),
    *,
    reference_size: ReferenceSize | None = None,
) -> list[Bucket]:
    """Assign each example to the bucket with the nearest aspect ratio, of each resolution that it
    is large enough for.

    Pairs are in one bucket only if their references have the same sizes too.

    Args:
        examples: Checked images, whose sizes are known.
        config: Crops, flips and their seed.
        size: (h, w) of all images in pixels; with buckets, of the square with their area.
        bucket_step: Multiple of which the sides of buckets are; None: one bucket of `size`.
        smaller: Further resolutions, ascending, each size and step. The first of all takes the
            examples that are too small, too.
        reference_size: Size that the base model's family gives a reference; None without
            references.

    Returns:
        The buckets with images, by resolution, and from tall to wide.
    """
    found: list[Bucket] = []
    for number, (square, step) in enumerate((*smaller, (size, bucket_step))):
        sizes = [square] if step is None else bucket_sizes(square[0], step)
        members: dict[Size, list[int]] = {one: [] for one in sizes}
        for index, example in enumerate(examples):
            target = nearest(example.size, sizes)
            if number == 0 or not is_enlarged(example.size, target):
                members[target].append(index)
        shift = None if step is None else _MIN_SHIFT
        found += [
            Bucket(
                some,
                plan_crops([examples[one] for one in some], config, target, shift),
                number,
                references,
            )
            for target, inside in members.items()
            for references, some in _by_references(
                examples, inside, target, square[0], reference_size
            )
        ]
    return found


def is_enlarged(image: tuple[int, int], size: Size) -> bool:
    """Tell whether an image, (width, height), is upscaled to cover a size, (h, w)."""
    return image[0] < size[1] or image[1] < size[0]


def _by_references(
    examples: Sequence[Example],
    members: Sequence[int],
    size: Size,
    side: int,
    reference_size: ReferenceSize | None,
) -> list[tuple[tuple[Size, ...], Sequence[int]]]:
    """Return the sizes of references, (width, height), and the members that have those."""
    found: dict[tuple[Size, ...], list[int]] = {}
    for index in members:
        one = examples[index]
        sizes: tuple[Size, ...] = ()
        if reference_size is not None:
            parts = (cropped_size(one.size, whole, size) for whole in one.reference_sizes)
            sizes = tuple(reference_size(part, side) for part in parts)
        found.setdefault(sizes, []).append(index)
    return sorted(found.items())


def plan_crops(
    examples: Sequence[Example], config: DataConfig, size: Size, min_shift: int | None = None
) -> CropPlan:
    """Return the crops and flips of `examples` that are cached at `size` (h, w).

    An image with the aspect ratio of `size` has one crop, whatever is configured.

    Args:
        examples: Checked images, whose sizes are known.
        config: Crops, flips and their seed.
        size: (h, w) of all crops in pixels.
        min_shift: Pixels by which neighbouring crops differ at least, which limits their number;
            None: always `crop_variants`.
    """
    crops = [_crops(example, config, size, min_shift) for example in examples]
    flips = 2 if config.random_flip else 1
    first_rows = list(accumulate((len(one) * flips for one in crops), initial=0))
    return CropPlan(size, [example.size for example in examples], crops, flips, first_rows)


def _crops(
    example: Example, config: DataConfig, size: Size, min_shift: int | None
) -> tuple[Crop, ...]:
    """Return one random crop in each of `crop_variants` equal parts of the longer side.

    Every position is as likely as with independent random crops, and none is left out.
    """
    width, height = covering_size(*example.size, size)
    slack = max(width - size[1], height - size[0])
    if example.crop_center is not None and slack:
        return (_crop_around(example.crop_center, (width, height), size),)
    if config.center_crop or not slack:
        return (Crop(),)
    rng = random.Random(f"{config.seed}/{example.name}")
    count = config.crop_variants
    if min_shift is not None:
        count = min(count, 1 + slack // min_shift)
    return tuple(Crop((part + rng.random()) / count) for part in range(count))


def _crop_around(crop_center: tuple[float, float], covering: Size, size: Size) -> Crop:
    """Return the crop with `crop_center` in its middle, moved until it lies inside the image.

    Args:
        crop_center: (x, y) in [0, 1] of width and height.
        covering: (width, height) of the resized image, which covers `size`.
        size: (h, w) of the crop.
    """
    sides = zip(crop_center, covering, reversed(size), strict=True)
    place, length, window = max(sides, key=lambda side: side[1] - side[2])
    slack = length - window
    offset = min(max(round(place * length - window / 2), 0), slack)
    return Crop((offset + 0.5) / (slack + 1))
