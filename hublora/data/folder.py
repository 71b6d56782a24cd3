"""A folder of captioned images.

    photos/                        or    photos/
      metadata.jsonl  (or .csv)            cat.png
      cat.png                              cat.txt

Each line of the metadata has a `file_name`, relative to the metadata's folder, and a caption;
subfolders may have metadata of their own. `hublora.data.folder_files` finds the files.

Over 300 lines because rows of metadata and files by their names end in the same listing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hublora.data.captions import CaptionLines, as_captions
from hublora.data.columns import find_caption_column, find_named_captions, has_tags
from hublora.data.config import DataConfig
from hublora.data.examples import Example, Listing, Skipped
from hublora.data.files_beside import Beside, find_beside
from hublora.data.folder_files import (
    ENDINGS,
    FolderLayout,
    check_link,
    digest_files,
    find_images,
    find_layout,
    find_linked_folders,
    find_tables,
)
from hublora.data.kohya_repeats import read_repeats
from hublora.data.masks import find_mask_column
from hublora.data.metadata import read_metadata
from hublora.data.own_output import generated_note, results_note
from hublora.data.references import find_reference_columns
from hublora.errors import DataError

SIDECAR_ENDING = ".txt"
FILE_COLUMN = "file_name"
# The published command lines of diffusers' scripts call a folder's image column "image".
IMAGE_COLUMNS = ("image", FILE_COLUMN)
SIDECAR_COLUMN = "text"


def list_folder(config: DataConfig, folder: Path, name: str) -> Listing:
    """Return the images of a folder in the order of the metadata, or of their names.

    Args:
        config: Names of columns, split, masks and repeats.
        folder: Folder with images and, if any, metadata.
        name: Name of the folder in logs and cards.

    Raises:
        DataError: The folder does not exist; its metadata cannot be read; a name or link leads
            out of the folder; or a column does not exist.
    """
    layout = find_layout(folder, config.split)
    folder, tables = layout.root, find_tables(layout)
    _check_columns(config, name, bool(tables))
    images, found = find_beside(find_images(layout.part))
    beside = found.used(config)
    for path in beside.paths:
        check_link(folder, path)
    left_out: list[Skipped] = []
    if tables:
        column, of_references, examples, used = _from_tables(config, layout, tables, beside)
        # Metadata is about the images in its own folder and below: others have their own captions.
        places = [table.parent for table in tables]
        inside = [path for path in images if any(map(path.is_relative_to, places))]
        outside = [path for path in images if path not in {*inside, *used}]
        _, more, left_out = _from_names(folder, outside, beside, config.caption_lines)
        examples += more
        reason = f"is not named in {tables[0].relative_to(folder).as_posix()}"
        others = [path.relative_to(folder).as_posix() for path in inside if path not in used]
        left_out += [Skipped(name, reason) for name in others]
    else:
        column, examples, left_out = _from_names(folder, images, beside, config.caption_lines)
        of_references = []
    left_out += find_linked_folders(layout)
    notes = [*layout.notes, *found.unused_notes(beside)]
    notes += results_note(layout.part)
    notes += generated_note([(one.name, folder / one.name) for one in examples])
    repeated, said = read_repeats(config, examples)
    digest, each = digest_files([(one.name, one.file) for one in examples], config.num_workers)
    masked = [(one.name, one.mask) for one in examples if one.mask]
    paired = [(one.name, reference) for one in examples for reference in one.references]
    origin = _origin(", ".join(of_references) or None, sorted({path.name for path in tables}))
    return Listing(
        id=name,
        revision=None,
        license=None,
        image_column=FILE_COLUMN,
        caption_column=column,
        digest=digest,
        mask_digest=digest_files(masked, config.num_workers)[0],
        reference_digest=digest_files(paired, config.num_workers)[0],
        references_from=(origin or "x.control.png beside x.png") if paired else None,
        examples=[replace(one, digest=own) for one, own in zip(repeated, each, strict=True)],
        left_out=left_out,
        notes=[*notes, *said],
        captions_from=_origin(column, sorted({path.name for path in tables})),
    )


def _origin(column: str | None, tables: Sequence[str]) -> str | None:
    """Return where the captions are, for log and card."""
    if column is None:
        return None
    return f"column {column!r} of {', '.join(tables)}" if tables else "the .txt beside each image"


def _check_columns(config: DataConfig, name: str, has_tables: bool) -> None:
    """Refuse names of columns that a folder cannot have.

    Raises:
        DataError: The config names such a column.
    """
    if config.image_column not in (None, *IMAGE_COLUMNS):
        raise DataError(
            f"A folder has no image column {config.image_column!r}.",
            f"Leave out --image-column: {FILE_COLUMN} names the images.",
        )
    if has_tables:
        return
    without = f"{name} has no metadata.jsonl or metadata.csv, so no"
    if config.caption_column not in (None, SIDECAR_COLUMN):
        raise DataError(
            f"{without} caption column {config.caption_column!r}.",
            "Leave out --caption-column: the .txt beside each image is its caption.",
        )
    if config.mask_column is not None:
        raise DataError(
            f"{without} column of masks {config.mask_column!r}.",
            "Leave out data.mask_column: x.mask.png beside x.png is its mask.",
        )
    if config.reference_column is not None:
        raise DataError(
            f"{without} column of reference images {config.reference_column!r}.",
            "Leave out data.reference_column: x.control.png beside x.png is its reference.",
        )


def list_images(folder: Path) -> list[Example]:
    """Return all images in `folder` and below, sorted by name, with their .txt captions."""
    images, _ = find_beside(find_images(folder))
    return _from_names(folder, images, Beside())[1]


def list_uncaptioned(folder: Path) -> list[Example]:
    """Return all images in `folder` and below, sorted by name, whatever is said about them."""
    images, _ = find_beside(find_images(folder))
    for path in images:
        check_link(folder, path)
    return [_example(folder, path, (), Beside()) for path in images]


def _from_tables(
    config: DataConfig, layout: FolderLayout, tables: Sequence[Path], beside: Beside
) -> tuple[str | None, list[str], list[Example], set[Path]]:
    """Return the caption column, those of references, the examples, and all files that are named in
    a row."""
    folder = layout.root
    for table in tables:
        check_link(folder, table)
    rows = [(table, row) for table in tables for row in read_metadata(table)]
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    listed = tables[0].relative_to(folder)
    if FILE_COLUMN not in columns:
        raise DataError(
            f"{listed} has no column {FILE_COLUMN!r}; it has {', '.join(columns) or 'none'}.",
            'A line reads {"file_name": "a.png", "text": "a drawing of a cat"}.',
        )
    texts = [name for name in columns if name != FILE_COLUMN and _holds_text(name, rows)]
    mask_column = find_mask_column(config.mask_column, texts, str(listed))
    of_references = _reference_columns(config, texts, rows, str(listed))
    texts = [name for name in texts if name not in (mask_column, *of_references)]
    if config.caption_column is None and config.default_caption is not None:
        column = find_named_captions(texts)
    else:
        column = find_caption_column(
            config.caption_column,
            texts,
            columns,
            str(listed),
            lambda name: [row[name] for _, row in rows if row.get(name)],
        )
    examples: list[Example] = []
    used: set[Path] = set()
    named_in: dict[Path, Path] = {}
    for table, row in rows:
        path = _resolve_name(folder, table.parent, row.get(FILE_COLUMN), table.name)
        if not path.is_relative_to(layout.part):
            within = layout.part / path.relative_to(table.parent)
            if path.exists() or not within.exists():
                continue
            path = within
        _check_named_once(folder, path, table, named_in.setdefault(path, table))
        named = Beside(
            {path: _resolve_name(folder, table.parent, row[mask_column], table.name)}
            if mask_column is not None and row.get(mask_column)
            else {},
            _named_references(folder, table, row, of_references, path),
        )
        used |= {path, *named.paths}
        text = row.get(column) if column else None
        captions = as_captions(text, config.caption_lines, has_tags(column))
        examples.append(_example(folder, path, captions, beside.updated(named.used(config))))
    return column, of_references, examples, used


def _reference_columns(
    config: DataConfig, texts: Sequence[str], rows: Sequence[tuple[Path, Any]], where: str
) -> list[str]:
    """Return the columns with names of reference images; of those that are not named in the config,
    only such as name images."""
    found = find_reference_columns(config.reference_column, texts, where)
    if config.reference_column is not None:
        return found
    return [
        column
        for column in found
        if all(
            str(name).lower().endswith(ENDINGS)
            for _, row in rows
            for name in _as_list(row.get(column))
        )
    ]


def _named_references(
    folder: Path, table: Path, row: Mapping[str, Any], columns: Sequence[str], image: Path
) -> dict[Path, tuple[Path, ...]]:
    """Return the reference images that a row of metadata names, by its image."""
    names = [name for column in columns for name in _as_list(row.get(column))]
    if not names:
        return {}
    return {image: tuple(_resolve_name(folder, table.parent, one, table.name) for one in names)}


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _check_named_once(folder: Path, path: Path, table: Path, first: Path) -> None:
    """Refuse an image that two files of metadata name, which would count twice.

    Raises:
        DataError: `first` is another file than `table`.
    """
    if first != table:
        one, other = (file.relative_to(folder).as_posix() for file in (first, table))
        raise DataError(
            f"{path.relative_to(folder).as_posix()} is named in {one} and in {other}.",
            "Remove one of the two files, or the rows that are in both.",
        )


def _from_names(
    folder: Path,
    images: Sequence[Path],
    beside: Beside,
    lines: CaptionLines = "join",
) -> tuple[str, list[Example], list[Skipped]]:
    for path in images:
        check_link(folder, path)
    examples, left_out = [], []
    for path in images:
        try:
            captions = _read_sidecar(folder, path, lines)
            examples.append(_example(folder, path, captions, beside))
        except UnicodeDecodeError:
            name = path.relative_to(folder).as_posix()
            left_out.append(Skipped(name, "has a caption that is not UTF-8 text"))
    return SIDECAR_COLUMN, examples, left_out


def _example(folder: Path, path: Path, captions: tuple[str, ...], beside: Beside) -> Example:
    name, mask = path.relative_to(folder).as_posix(), beside.masks.get(path)
    return Example(
        name,
        captions,
        partial(_open, path),
        mask=partial(_open, mask) if mask is not None else None,
        references=tuple(partial(_open, one) for one in beside.references.get(path, ())),
    )


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _read_sidecar(folder: Path, image: Path, lines: CaptionLines) -> tuple[str, ...]:
    sidecar = image.with_suffix(SIDECAR_ENDING)
    if not sidecar.is_file():
        return ()
    check_link(folder, sidecar)
    return as_captions(sidecar.read_text(encoding="utf-8-sig"), lines)


def _resolve_name(folder: Path, start: Path, name: Any, listed_in: str) -> Path:
    """Return the path of `name`, relative to `start` and inside `folder`.

    Raises:
        DataError: The name is absolute, a URL, has "..", or is a link that leads out.
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"{listed_in} has a line without a {FILE_COLUMN}.")
    if (path := Path(name)).is_absolute() and path.is_relative_to(folder.resolve()):
        raise DataError(
            f"{listed_in} names {name!r} by its absolute path.",
            f"Write it relative to the folder: {path.relative_to(folder.resolve()).as_posix()!r}.",
        )
    slashed = name.replace("\\", "/")
    parts = PurePosixPath(slashed).parts
    hostile = slashed.startswith("/") or ".." in parts or "://" in name or "\0" in name
    if hostile or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{listed_in} names {name!r}, which is outside of the folder.",
            "Write names relative to the folder, without '..'.",
        )
    check_link(folder, start / name)
    return start / name


def _holds_text(column: str, rows: Iterable[tuple[Path, dict[str, Any]]]) -> bool:
    filled = [row[column] for _, row in rows if row.get(column) is not None]
    return bool(filled) and all(isinstance(value, (str, list)) for value in filled)
