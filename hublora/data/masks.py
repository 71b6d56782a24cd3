"""Loss masks: white areas of an image are learned, black ones are not, grey in between.

cat.png  cat.mask.png          beside each image; also OneTrainer's cat-masklabel.png
{"file_name": "cat.png", "text": "a cat", "mask": "masks/cat.png"}    or in the metadata
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.crops import CropPlan
from hublora.data.examples import Example
from hublora.data.images import Crop, covering_size, load_image, to_rgb
from hublora.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# Suffixes of a mask's stem after the image's stem.
MARKS = (".mask", "-masklabel")
COLUMN_NAMES = ("mask", "masks", "mask_image", "mask_file_name")
_MAX_STRETCH = 1.02  # between the aspect ratios of an image and its mask


def pair_up(images: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Return the images without the masks among them, and image -> mask.

    A file with a mask's name is a mask only if the image of that name is in the same folder.
    """
    stems = {(path.parent, path.stem) for path in images}
    masks: dict[tuple[Path, str], Path] = {}
    rest = []
    for path in images:
        image = next((stem for stem in _masked_stems(path) if (path.parent, stem) in stems), None)
        if image is None:
            rest.append(path)
        else:
            masks[path.parent, image] = path
    return rest, {
        path: masks[path.parent, path.stem] for path in rest if (path.parent, path.stem) in masks
    }


def _masked_stems(path: Path) -> list[str]:
    """Return the stems of the images whose mask a file would be by its name."""
    return [path.stem.removesuffix(mark) for mark in MARKS if path.stem.endswith(mark)]


def find_mask_column(wanted: str | None, columns: Iterable[str], where: str) -> str | None:
    """Return the column with the masks: `wanted`, else one with a known name, else None.

    Raises:
        DataError: The column `wanted` does not exist.
    """
    columns = list(columns)
    if wanted is None:
        lowered = {column.lower(): column for column in reversed(columns)}
        return next((lowered[name] for name in COLUMN_NAMES if name in lowered), None)
    if wanted not in columns:
        listed = ", ".join(map(repr, columns)) or "none"
        raise DataError(
            f"{where} has no mask column {wanted!r}; choose from {listed}.",
            "Set data.mask_column, or remove it.",
        )
    return wanted


def open_mask(example: Example) -> Image | None:
    """Return an example's mask as 8-bit grey; None without one.

    Raises:
        DataError: The mask is damaged, all black or has another aspect ratio than the image. The
            message is a clause.
    """
    if example.mask is None:
        return None
    try:
        with example.mask() as file:
            image = to_rgb(load_image(file)).convert("L")
    except DataError as error:
        raise DataError(f"has a mask that {error.message}") from error
    except OSError as error:
        raise DataError(f"has a mask that cannot be read ({error.strerror or error})") from error
    if image.getextrema()[1] == 0:
        raise DataError("has a mask that is all black, so nothing of it would be learned")
    width, height = example.size
    stretch = (image.width * height) / (image.height * width) if width and height else 1.0
    if max(stretch, 1 / stretch) > _MAX_STRETCH:
        raise DataError(
            f"has a mask of another aspect ratio ({image.width}×{image.height} for "
            f"{width}×{height})"
        )
    return image


def mask_of_row(
    examples: Sequence[Example], plan: CropPlan, row: int, size: tuple[int, int]
) -> Any:
    """Return the mask of a row of `plan` as uint8 [h', w']; all 255 without a mask.

    Args:
        examples: Examples of the plan.
        plan: Crops and flips.
        row: Row of the plan.
        size: (h', w') of the latents.

    Raises:
        DataError: The mask changed since the images were checked.
    """
    import numpy as np

    index, crop, flip = plan.of_row(row)
    example = examples[index]
    try:
        mask = open_mask(example)
    except DataError as error:
        raise DataError(f"The image {example.name} {error.message}.") from error
    if mask is None:
        return np.full(size, 255, np.uint8)
    return shrink(cut_mask(mask, example.size, plan.size, crop, flip), size)


def cut_mask(
    mask: Image, image: tuple[int, int], size: tuple[int, int], crop: Crop, flip: bool
) -> Any:
    """Return a crop of a mask as uint8 [h, w], the same part as that of its image.

    Args:
        mask: Mask in 8-bit grey.
        image: (width, height) of the image in pixels.
        size: (h, w) of the crop in pixels.
        crop: Position of the crop.
        flip: Whether to mirror left and right after cropping.
    """
    import numpy as np
    from PIL.Image import Resampling

    covering = covering_size(*image, size)
    if mask.size != covering:
        mask = mask.resize(covering, Resampling.BILINEAR)
    height, width = size
    top, left = crop.offset(mask.height - height), crop.offset(mask.width - width)
    pixels = np.asarray(mask)[top : top + height, left : left + width]
    return pixels[:, ::-1] if flip else pixels


def shrink(mask: Any, size: tuple[int, int]) -> Any:
    """Return `mask`, uint8 [h, w], reduced to [h', w'] by averaging."""
    import numpy as np
    from PIL import Image

    height, width = size
    image = Image.fromarray(np.ascontiguousarray(mask))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
