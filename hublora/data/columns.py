"""Finds the image, caption and mask columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hublora.data.config import DataConfig
from hublora.data.masks import find_mask_column
from hublora.errors import DataError

# In order of preference; "jpg", "png" and "txt" are what webdataset calls them.
IMAGE_NAMES = ("image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
CAPTION_NAMES = (
    *("text", "caption", "captions", "prompt", "prompts", "txt"),
    *("description", "descriptions", "title", "alt_text", "alt"),
)
CAPTION_ENDINGS = ("caption", "captions", "text", "prompt", "description")
# Strings that describe a file rather than the content of the image.
NEVER_CAPTIONS = (
    *("id", "_id", "uid", "uuid", "key", "__key__", "__url__", "url", "uri", "path", "file"),
    *("file_name", "filename", "image_id", "image_url", "hash", "md5", "sha1", "sha256", "phash"),
    *(
        "mask",
        "split",
        "license",
        "licence",
        "source",
        "author",
        "date",
        "format",
        "mode",
        "language",
    ),
)


def find_image_column(
    wanted: str | None, image_columns: Sequence[str], all_columns: Sequence[str], where: str
) -> str:
    """Return the column with the images.

    Args:
        wanted: Column that the config names; None finds it.
        image_columns: Columns with images.
        all_columns: All columns, for the message.
        where: Name of the dataset, for the message.

    Raises:
        DataError: No column has images, or several have and no name decides.
    """
    if wanted is not None:
        if wanted in image_columns:
            return wanted
        raise _unknown("image", wanted, image_columns or all_columns, where)
    if len(image_columns) == 1:
        return image_columns[0]
    best = _first_known(image_columns, IMAGE_NAMES)
    if best:
        return best
    if image_columns:
        raise DataError(
            f"{where} has several columns with images: {_listed(image_columns)}.",
            "Name one with --image-column.",
        )
    raise DataError(f"{where} has no column with images, only {_listed(all_columns)}.")


def find_caption_column(
    wanted: str | None, text_columns: Sequence[str], all_columns: Sequence[str], where: str
) -> str:
    """Return the column with the captions: by name, else the first one that could be captions.

    Args:
        wanted: Column that the config names; None finds it.
        text_columns: Columns with strings or lists of strings.
        all_columns: All columns, for the message.
        where: Name of the dataset, for the message.

    Raises:
        DataError: No column has captions.
    """
    if wanted is not None:
        if wanted in text_columns:
            return wanted
        raise _unknown("caption", wanted, text_columns or all_columns, where)
    possible = [name for name in text_columns if name.lower() not in NEVER_CAPTIONS]
    best = _first_known(possible, CAPTION_NAMES) or next(
        (name for name in possible if name.lower().endswith(CAPTION_ENDINGS)), None
    )
    if best or possible:
        return best or possible[0]
    raise DataError(
        f"{where} has no column with captions, only {_listed(all_columns)}.",
        "Name one with --caption-column, or give all images one caption with "
        '--set data.default_caption="…".',
    )


def _first_known(columns: Sequence[str], names: Sequence[str]) -> str | None:
    lowered = {column.lower(): column for column in reversed(columns)}
    return next((lowered[name] for name in names if name in lowered), None)


def _unknown(kind: str, wanted: str, columns: Sequence[str], where: str) -> DataError:
    from difflib import get_close_matches

    close = get_close_matches(wanted, columns, 1) or columns[:1]
    return DataError(
        f"{where} has no {kind} column {wanted!r}; it has {_listed(columns)}.",
        f"Name one with --{kind}-column {close[0]}." if close else None,
    )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(repr(column) for column in columns) or "nothing"


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read.

    Attributes:
        image: Column with the images.
        caption: Column with the captions; None where all get the default caption.
        mask: Column with the masks; None without masks or without `data.masks`.
    """

    image: str
    caption: str | None
    mask: str | None


def choose_columns(config: DataConfig, features: Mapping[str, Any]) -> Columns:
    """Return the columns to read.

    Args:
        config: Names of columns that are set, and whether masks are used.
        features: Column -> type of the `datasets` library.

    Raises:
        DataError: A column does not exist, or several columns are possible.
    """
    where, names = f"The dataset {config.dataset}", list(features)
    images = [name for name in names if _is_image(features[name])]
    wanted = config.mask_column if config.masks else None
    mask = find_mask_column(wanted, images, where)
    candidates = [name for name in images if name != mask] or images
    image = find_image_column(config.image_column, candidates, names, where)
    if not config.masks or mask == image:
        mask = None
    texts = [name for name in names if _is_text(features[name])]
    if config.default_caption is not None and config.caption_column is None and not texts:
        return Columns(image, None, mask)
    return Columns(image, find_caption_column(config.caption_column, texts, names, where), mask)


def _is_image(feature: Any) -> bool:
    """Return whether a column has images, by its type or by the fields of the type."""
    from datasets import Image

    if isinstance(feature, Image):
        return True
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _is_text(feature: Any) -> bool:
    if isinstance(feature, (list, tuple)):
        return len(feature) == 1 and _is_text(feature[0])
    if type(feature).__name__ in ("List", "LargeList", "Sequence"):
        return _is_text(feature.feature)
    return getattr(feature, "dtype", None) in ("string", "large_string")
