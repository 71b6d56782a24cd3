"""Finds the image, caption and mask columns of a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hublora.data.config import DataConfig
from hublora.data.masks import find_mask_column
from hublora.data.references import find_reference_columns
from hublora.errors import DataError

# In order of preference; "jpg", "png" and "txt" are what webdataset calls them.
IMAGE_NAMES = (
    *("image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    *("target", "target_image", "edited_image", "output_image", "after"),
)
CAPTION_NAMES = (
    *("text", "caption", "captions", "prompt", "prompts", "txt"),
    *("description", "descriptions", "alt_text", "alt", "instruction", "instructions"),
)
# Last words of names such as blip_caption, captionText and caption_2.
CAPTION_WORDS = (
    *("caption", "captions", "text", "texts", "prompt", "prompts"),
    *("description", "descriptions", "instruction", "instructions"),
)
# Last words of columns whose lists are the parts of one caption.
TAG_WORDS = ("tag", "tags", "keyword", "keywords", "label", "labels")
_SHOWN = 3  # values of each candidate in an error
_SHOWN_LENGTH = 40  # characters of a value in an error

Values = Callable[[str], Sequence[Any]]


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
    wanted: str | None,
    text_columns: Sequence[str],
    all_columns: Sequence[str],
    where: str,
    values: Values,
) -> str:
    """Return the column with the captions: the named one, else one whose name says caption.

    Args:
        wanted: Column that the config names; None finds it.
        text_columns: Columns with strings or lists of strings.
        all_columns: All columns, for the message.
        where: Name of the dataset, for the message.
        values: Column -> some of its values, for the message.

    Raises:
        DataError: No column's name says caption, or `wanted` has no text.
    """
    if wanted is not None:
        if wanted in text_columns:
            return wanted
        raise _unknown("caption", wanted, text_columns or all_columns, where, all_columns)
    named = find_named_captions(text_columns)
    if named is not None:
        return named
    fill = 'give all images one caption with --set data.default_caption="…".'
    if not text_columns:
        raise DataError(
            f"{where} has no column with captions, only {_listed(all_columns)}.",
            f"Name one with --caption-column, or {fill}",
        )
    shown = "; ".join(f"{name!r}: {_sampled(values(name))}" for name in text_columns)
    raise DataError(
        f"{where} has no column whose name says caption. Columns with text are {shown}.",
        f"If one has the captions, name it: --caption-column {text_columns[0]}. Or {fill}",
    )


def find_named_captions(text_columns: Sequence[str]) -> str | None:
    """Return the column whose name says that it has captions; None without one."""
    return _first_known(text_columns, CAPTION_NAMES) or next(
        (name for name in text_columns if _says_caption(name)), None
    )


def has_tags(column: str | None) -> bool:
    """Return whether a column's name says that its lists are tags of one caption."""
    return column is not None and _words(column)[-1:] in [[word] for word in TAG_WORDS]


def _says_caption(column: str) -> bool:
    words = _words(column)
    return bool(words) and words[-1] in CAPTION_WORDS and "negative" not in words


def _words(column: str) -> list[str]:
    """Return the lower-case words of a column's name, without numbers."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", column)]


def _sampled(values: Sequence[Any]) -> str:
    """Return the first distinct values of a column, shortened."""
    filled = [one for one in values if one is not None]
    texts = [", ".join(map(str, one)) if isinstance(one, list) else str(one) for one in filled]
    some = list(dict.fromkeys(text for text in texts if text))[:_SHOWN]
    cut = [text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…" for text in some]
    return ", ".join(map(repr, cut)) or "empty"


def _first_known(columns: Sequence[str], names: Sequence[str]) -> str | None:
    lowered = {column.lower(): column for column in reversed(columns)}
    return next((lowered[name] for name in names if name in lowered), None)


def _unknown(
    kind: str,
    wanted: str,
    columns: Sequence[str],
    where: str,
    all_columns: Sequence[str] = (),
) -> DataError:
    from difflib import get_close_matches

    if wanted in all_columns:
        return DataError(
            f"The column {wanted!r} of {where} has no text; its columns are {_listed(columns)}.",
            "Name a column of strings, or leave out --caption-column and set "
            'data.default_caption="…".',
        )

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
        references: Columns with reference images in order; empty without any or without
            `data.references`.
    """

    image: str
    caption: str | None
    mask: str | None
    references: tuple[str, ...] = ()


def choose_columns(config: DataConfig, features: Mapping[str, Any], values: Values) -> Columns:
    """Return the columns to read.

    Args:
        config: Names of columns that are set, and whether masks are used.
        features: Column -> type of the `datasets` library.
        values: Column -> some of its values, for messages.

    Raises:
        DataError: A column does not exist, or several columns are possible.
    """
    where, names = f"The dataset {config.dataset}", list(features)
    images = [name for name in names if _is_image(features[name])]
    wanted = config.mask_column if config.masks else None
    mask = find_mask_column(wanted, images, where)
    references = _find_references(config, features, where)
    others = [name for name in images if name not in (mask, *references)]
    candidates = others or [name for name in images if name != mask] or images
    image = find_image_column(config.image_column, candidates, names, where)
    references = tuple(name for name in references if name != image)
    if not config.masks or mask == image:
        mask = None
    texts = [name for name in names if _is_text(features[name])]
    if config.caption_column is None and config.default_caption is not None:
        return Columns(image, find_named_captions(texts), mask, references)
    caption = find_caption_column(config.caption_column, texts, names, where, values)
    return Columns(image, caption, mask, references)


def _find_references(
    config: DataConfig, features: Mapping[str, Any], where: str
) -> tuple[str, ...]:
    """Return the columns of reference images, which may be lists."""
    if config.references is False:
        return ()
    columns = [name for name, kind in features.items() if _is_image(kind) or is_image_list(kind)]
    return tuple(find_reference_columns(config.reference_column, columns, where))


def is_image_list(feature: Any) -> bool:
    """Return whether a column has lists of images."""
    if isinstance(feature, (list, tuple)):
        return len(feature) == 1 and _is_image(feature[0])
    return type(feature).__name__ in ("List", "LargeList", "Sequence") and _is_image(
        feature.feature
    )


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
