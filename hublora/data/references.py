"""Reference images of a pair: what an edit model is shown beside the instruction.

cat.png  cat.control.png  cat.control2.png      beside each image, which is the result
{"file_name": "cat.png", "text": "make it snow", "control": "before/cat.png"}    or in the metadata
{"file_name": "cat.png", "text": "…", "control": ["before/cat.png", "style.png"]}

In a table, a column of images or of lists of images, or several: control, control2, ….
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.data.examples import Example, Skipped
from hublora.data.images import Crop, covering_size, load_image, to_rgb
from hublora.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

# Names of columns without their number, `_` and case, as the field writes them.
_NAMES = frozenset(
    f"{name}{ending}"
    for name in (
        *("control", "controlimage", "reference", "referenceimage", "conditionimage"),
        *("conditioningimage", "condimage", "inputimage", "sourceimage", "originalimage"),
        *("editimage", "source", "before"),
    )
    for ending in ("", "s")
) | {"controlfilename", "controlpath", "referencefilename"}
_MARK = re.compile(r"(?P<image>.+)\.control(?P<number>\d*)")
_MAX_STRETCH = 1.02  # between the aspect ratios of an image and a reference that shares its crops


def pair_up(images: Sequence[Path]) -> tuple[list[Path], dict[Path, tuple[Path, ...]]]:
    """Return the images without the references among them, and image -> its references in order.

    A file with a reference's name is one only if the image of that name is in the same folder.
    """
    stems = {(path.parent, path.stem) for path in images}
    found: dict[tuple[Path, str], dict[int, Path]] = {}
    rest = []
    for path in images:
        mark = _MARK.fullmatch(path.stem)
        if mark is None or (path.parent, mark["image"]) not in stems:
            rest.append(path)
            continue
        of_image = found.setdefault((path.parent, mark["image"]), {})
        number = int(mark["number"] or 1)
        if number in of_image:
            raise DataError(
                f"{path.name} and {of_image[number].name} are both reference {number} of "
                f"{mark['image']!r}.",
                "Remove one, or number them: x.control.png, x.control2.png.",
            )
        of_image[number] = path
    return rest, {
        path: tuple(one for _, one in sorted(found[path.parent, path.stem].items()))
        for path in rest
        if (path.parent, path.stem) in found
    }


def find_reference_columns(wanted: str | None, columns: Iterable[str], where: str) -> list[str]:
    """Return the columns with the references in the order of their numbers: those that are named,
    else those with a known name.

    Args:
        wanted: Names, separated by commas; None finds them.
        columns: Columns with images, or with names of files.
        where: Name of the dataset, for the message.

    Raises:
        DataError: A column that is named does not exist.
    """
    columns = list(columns)
    if wanted is None:
        named = [(_number(one), one) for one in columns if _plain(one) in _NAMES]
        return [one for _, one in sorted(named, key=lambda pair: pair[0])]
    chosen = [one.strip() for one in wanted.split(",") if one.strip()]
    for one in chosen:
        if one not in columns:
            listed = ", ".join(map(repr, columns)) or "none"
            raise DataError(
                f"{where} has no column of reference images {one!r}; choose from {listed}.",
                "Set data.reference_column, or remove it.",
            )
    return chosen


def _plain(column: str) -> str:
    return re.sub(r"[\W_]|\d+$", "", column).lower()


def _number(column: str) -> int:
    found = re.search(r"\d+$", column)
    return int(found[0]) if found else 0


def open_references(example: Example) -> list[Image]:
    """Return an example's references in RGB, upright.

    Raises:
        DataError: One is damaged or cannot be read. The message is a clause.
    """
    images = []
    for number, opens in enumerate(example.references, start=1):
        which = "a reference image" if len(example.references) == 1 else f"reference image {number}"
        try:
            with opens() as file:
                images.append(to_rgb(load_image(file)))
        except DataError as error:
            raise DataError(f"has {which} that {error.message}") from error
        except OSError as error:
            raise DataError(
                f"has {which} that cannot be read ({error.strerror or error})"
            ) from error
    return images


def shares_crops(image: Size, reference: Size) -> bool:
    """Tell whether a reference gets the same crop as its image: if their aspect ratios are equal.

    Args:
        image: Width and height of the image.
        reference: Width and height of the reference.
    """
    stretch = (image[0] * reference[1]) / (image[1] * reference[0])
    return max(stretch, 1 / stretch) <= _MAX_STRETCH


def cropped_size(image: Size, reference: Size, size: Size) -> Size:
    """Return the width and height of a reference after the crop of its image, in its own pixels.

    Args:
        image: Width and height of the image.
        reference: Width and height of the reference.
        size: (h, w) of the image's crops.
    """
    covering = covering_size(*image, size)
    if not shares_crops(image, reference) or covering == (size[1], size[0]):
        return reference
    scale = reference[0] / covering[0]
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


def crop_reference(reference: Image, image: Size, size: Size, crop: Crop, flip: bool) -> Image:
    """Return the part of a reference that belongs to a crop of its image, mirrored like it.

    A reference of another aspect ratio than the image stays whole.

    Args:
        reference: Reference in RGB.
        image: Width and height of the image.
        size: (h, w) of the crop.
        crop: Position of the crop.
        flip: Whether to mirror left and right after cropping.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    part = cropped_size(image, reference.size, size)
    if part != reference.size:
        width, height = covering_size(*image, size)
        left, top = crop.offset(width - size[1]), crop.offset(height - size[0])
        across, down = reference.width / width, reference.height / height
        box = (
            left * across,
            top * down,
            min((left + size[1]) * across, reference.width),
            min((top + size[0]) * down, reference.height),
        )
        reference = reference.resize(part, Resampling.LANCZOS, box)
    return ImageOps.mirror(reference) if flip else reference


def split_unpaired(
    examples: Sequence[Example], where: str, required: bool | None
) -> tuple[Sequence[Example], list[Skipped]]:
    """Return the examples with references and, where some have any, the others as skipped.

    Args:
        examples: Captioned images.
        where: Name of the dataset, for the message.
        required: `data.references` of the settings.

    Raises:
        DataError: References are required, and no image has one.
    """
    without = [one for one in examples if not one.references]
    if len(without) < len(examples):
        unpaired = [Skipped(one.name, "has no reference image") for one in without]
        return [one for one in examples if one.references], unpaired
    if required:
        raise DataError(
            f"No image of {where} has a reference image, which pairs consist of.",
            "Put x.control.png beside x.png, or name a column: --set data.reference_column=…",
        )
    return examples, []


def reference_note(where: str, examples: Sequence[Example], origin: str) -> str:
    """Return the sentence that says how many references the images have."""
    counts = sorted({len(one.references) for one in examples})
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    noun = "reference image" if counts == [1] else "reference images"
    return f"Pairs: each image of {where} has {each} {noun} ({origin})."
