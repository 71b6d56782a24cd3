"""Which columns of a dataset on the Hub hold pictures, captions and masks: by type, then name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hublora.data.columns import find_caption_column, find_image_column
from hublora.data.config import DataConfig
from hublora.data.masks import find_mask_column


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where there is none or none is asked for."""

    image: str
    caption: str | None
    mask: str | None


def choose_columns(config: DataConfig, features: Mapping[str, Any]) -> Columns:
    """Return the columns to read.

    Args:
        config: Which ones are asked for.
        features: Name -> type, as the `datasets` library has it.

    Raises:
        DataError: One is not there, or nothing tells which it is.
    """
    where, names = f"The dataset {config.dataset}", list(features)
    pictures = [name for name in names if _is_image(features[name])]
    wanted = config.mask_column if config.masks else None
    mask = find_mask_column(wanted, pictures, where)
    candidates = [name for name in pictures if name != mask] or pictures
    image = find_image_column(config.image_column, candidates, names, where)
    if not config.masks or mask == image:
        mask = None
    texts = [name for name in names if _is_text(features[name])]
    if config.default_caption is not None and config.caption_column is None and not texts:
        return Columns(image, None, mask)
    return Columns(image, find_caption_column(config.caption_column, texts, names, where), mask)


def _is_image(feature: Any) -> bool:
    """Tell whether a column holds pictures: by its type, or by the fields that the type has."""
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
