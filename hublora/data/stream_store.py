"""Streamed images in append-only files that survive a crash.

images.bin      encoded images and masks, concatenated
rows.jsonl      name, captions, offsets and checksums of each row
progress.json   sizes of both that are synced to the disk; the rest is truncated before resuming
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any
from zlib import crc32

from hublora.data.examples import Example
from hublora.data.row_file import translated_disk_errors
from hublora.errors import DataError
from hublora.filesystem import write_atomically

IMAGES, ROWS, PROGRESS = "images.bin", "rows.jsonl", "progress.json"

# An encoded image, or a clause about why there is none.
Content = bytes | str
# Offset, length and CRC-32 of an encoded image.
Place = tuple[int, int, int]


class RowStore:
    """A context manager that appends rows to the files of a folder.

    Args:
        folder: Existing folder.

    Raises:
        DataError: The disk is full or cannot be written; its methods raise this too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        progress = read_progress(folder)
        with translated_disk_errors(folder):
            self._images = _open_at(folder / IMAGES, progress.get("images", 0))
            self._rows = _open_at(folder / ROWS, progress.get("lines", 0))

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._images.close()
        self._rows.close()

    def add(self, name: str, captions: Sequence[str], image: Content, mask: Content | None) -> None:
        """Append a row; `mask` is None without one."""
        record: dict[str, Any] = {"name": name, "captions": captions, "image": self._put(image)}
        if mask is not None:
            record["mask"] = self._put(mask)
        line = json.dumps(record).encode()
        with translated_disk_errors(self.folder):
            self._rows.write(b"%08x %s\n" % (crc32(line), line))

    def note(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """Sync all rows to the disk, then write and return the progress.

        Args:
            progress: JSON values that `read_progress` returns besides the sizes.
        """
        with translated_disk_errors(self.folder):
            for file in (self._images, self._rows):
                file.flush()
                os.fsync(file.fileno())
            ends = {"images": self._images.tell(), "lines": self._rows.tell()}
            record = {**progress, **ends}
            write_atomically(self.folder / PROGRESS, json.dumps(record))
        return record

    def _put(self, content: Content) -> Place | str:
        """Append an image and return its place, or the clause that replaces it."""
        if isinstance(content, str):
            return content
        with translated_disk_errors(self.folder):
            start = self._images.tell()
            self._images.write(content)
        return start, len(content), crc32(content)


def read_progress(folder: Path) -> dict[str, Any]:
    """Return the progress that was written last; empty without any."""
    try:
        record = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def stored_examples(folder: Path, count: int) -> Iterator[Example]:
    """Yield the first `count` rows.

    Raises:
        DataError: A row is not what was written.
    """
    with open(folder / ROWS, "rb") as lines:
        for number, written in enumerate(islice(lines, count)):
            checksum, _, line = written.rstrip(b"\n").partition(b" ")
            if checksum != b"%08x" % crc32(line):
                raise DataError(f"Row {number} of {folder / ROWS} is damaged.", _remedy(folder))
            row = json.loads(line)
            mask = row.get("mask")
            yield Example(
                row["name"],
                tuple(row["captions"]),
                partial(_open, folder, row["image"]),
                mask=partial(_open, folder, mask) if mask is not None else None,
            )


def _open(folder: Path, place: Place | str) -> IO[bytes]:
    """Open an image.

    Raises:
        DataError: There is no image, or it is not what was written. The message is a clause.
    """
    if isinstance(place, str):
        raise DataError(place)
    start, length, checksum = place
    with open(folder / IMAGES, "rb") as file:
        file.seek(start)
        content = file.read(length)
    if crc32(content) != checksum:
        raise DataError(f"is damaged in {folder / IMAGES}", _remedy(folder))
    return io.BytesIO(content)


def _remedy(folder: Path) -> str:
    return f"Remove it, and it is read again: hublora cache rm {folder.name[:12]}"


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Open a file for appending after truncating it to `size` bytes."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file
