"""The rows of a downloaded `datasets` table as examples, whose images stay encoded until opened."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from hublora.data.captions import as_captions
from hublora.data.columns import Columns, has_tags, is_image_list
from hublora.data.config import DataConfig
from hublora.data.examples import Example
from hublora.errors import DataError

Opens = Callable[[], IO[bytes]]


def list_rows(config: DataConfig, table: Any, columns: Columns) -> list[Example]:
    """Return the rows of a `datasets.Dataset` in their order."""
    captions = table[columns.caption] if columns.caption else [None] * len(table)
    tags = has_tags(columns.caption)
    images = _undecoded(table, columns.image)
    masks = _undecoded(table, columns.mask) if columns.mask else None
    has_mask = _is_set(masks, columns.mask) if masks else [False] * len(table)
    references = _references(table, columns.references)
    return [
        Example(
            row_name(row, path),
            as_captions(text, config.caption_lines, tags),
            partial(_open_row, images, row, columns.image),
            mask=partial(_open_row, masks, row, str(columns.mask)) if masked else None,
            references=opens,
        )
        for row, (path, text, masked, opens) in enumerate(
            zip(_paths(images, columns.image), captions, has_mask, references, strict=True)
        )
    ]


def _references(table: Any, columns: Sequence[str]) -> list[tuple[Opens, ...]]:
    """Return what opens the reference images of each row, in the order of the columns."""
    opened: list[tuple[Opens, ...]] = [()] * len(table)
    for column in columns:
        images = _undecoded(table, column)
        lengths = _lengths(images, column)
        for row, length in enumerate(lengths):
            opened[row] += tuple(
                partial(_open_row, images, row, column, place) for place in range(length)
            )
    return opened


def _lengths(images: Any, column: str) -> list[int]:
    """Return the number of images in each cell, without reading them."""
    import pyarrow
    import pyarrow.compute

    values = images.data.column(column)
    if pyarrow.types.is_struct(values.type):
        return [int(is_set) for is_set in values.is_valid().to_pylist()]
    return [length or 0 for length in pyarrow.compute.list_value_length(values).to_pylist()]


def _undecoded(table: Any, column: str) -> Any:
    """Return a table with one column of images, or lists of them, that are not decoded."""
    from datasets import Image, List

    undecoded: Any = Image(decode=False)
    if is_image_list(table.features[column]):
        undecoded = List(undecoded)
    return table.select_columns([column]).cast_column(column, undecoded)


def _is_set(table: Any, column: str | None) -> list[bool]:
    """Return for each row whether its cell is set, without reading the cell."""
    return table.data.column(column).is_valid().to_pylist()


def _paths(images: Any, column: str) -> list[str | None]:
    """Return the `path` of every image without reading any image's bytes."""
    import pyarrow.compute

    return pyarrow.compute.struct_field(images.data.column(column), "path").to_pylist()


def row_name(row: int, path: str | None) -> str:
    """Return the name of a row in messages: its number and the image's file name, if any."""
    name = os.path.basename(path.split("::")[0]) if path else ""
    return f"row {row} ({name})" if name else f"row {row}"


def _open_row(images: Any, row: int, column: str, place: int = 0) -> IO[bytes]:
    """Open the encoded bytes of one row; of a list of images, of the one at a place from 0.

    Raises:
        DataError: The cell is empty, or names a file outside of the dataset. The message is a
            clause.
    """
    cell = images[row][column] or {}
    if isinstance(cell, list):
        cell = cell[place] or {}
    if cell.get("bytes") is not None:
        return io.BytesIO(cell["bytes"])
    path = cell.get("path")
    if not path:
        raise DataError("is missing")
    if not _is_downloaded(path):
        raise DataError(f"is only a link ({path[:200]})")
    if "::" in path:
        from datasets.utils.file_utils import xopen

        with xopen(path, "rb") as file:
            return io.BytesIO(file.read())
    return open(path, "rb")


def _is_downloaded(path: str) -> bool:
    """Return whether a path is in the caches that `datasets` downloads to.

    Rows are untrusted: without this check, a dataset could name any file of this computer or any
    address in its network.
    """
    import datasets
    from huggingface_hub import constants

    archive, _, container = path.rpartition("::")
    if archive and not archive.startswith("zip://"):
        return False
    if "://" in container:
        return False
    real = Path(container).resolve()
    roots = (constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)
    return any(real.is_relative_to(Path(root).resolve()) for root in roots)
