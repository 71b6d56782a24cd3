"""Images that are read over time into files which are never half trusted.

images.bin    encoded images and masks, end to end
rows.jsonl      name, captions and places of each row
progress.json   how much of both is on the disk; what lies beyond is cut off before going on
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

from hublora.data.examples import Example
from hublora.data.row_file import explained
from hublora.errors import DataError
from hublora.filesystem import write_atomically

IMAGES, ROWS, PROGRESS = "images.bin", "rows.jsonl", "progress.json"

# An encoded image, or the clause that says why there is none.
Content = bytes | str


class RowStore:
    """Appends rows to a folder; to be entered.

    Args:
        folder: Where; it is there.

    Raises:
        DataError: The disk is full or cannot be written; also from its methods.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        progress = read_progress(folder)
        with explained(folder):
            self._images = _open_at(folder / IMAGES, progress.get("images", 0))
            self._rows = _open_at(folder / ROWS, progress.get("lines", 0))

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._images.close()
        self._rows.close()

    def add(self, name: str, captions: Sequence[str], image: Content, mask: Content | None) -> None:
        """Append a row; without a mask, it is None."""
        record: dict[str, Any] = {"name": name, "captions": captions, "image": self._put(image)}
        if mask is not None:
            record["mask"] = self._put(mask)
        with explained(self.folder):
            self._rows.write(json.dumps(record).encode() + b"\n")

    def note(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """Bring everything to the disk, then say so; return what is said.

        Args:
            progress: What else `read_progress` is to return.
        """
        with explained(self.folder):
            for file in (self._images, self._rows):
                file.flush()
                os.fsync(file.fileno())
            ends = {"images": self._images.tell(), "lines": self._rows.tell()}
            record = {**progress, **ends}
            write_atomically(self.folder / PROGRESS, json.dumps(record))
        return record

    def _put(self, content: Content) -> tuple[int, int] | str:
        """Append an image; return its first byte and its length, or why there is none."""
        if isinstance(content, str):
            return content
        with explained(self.folder):
            start = self._images.tell()
            self._images.write(content)
        return start, len(content)


def read_progress(folder: Path) -> dict[str, Any]:
    """Return what was noted last, empty if nothing was."""
    try:
        record = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def stored_examples(folder: Path, count: int) -> Iterator[Example]:
    """Yield the first `count` rows."""
    with open(folder / ROWS, "rb") as lines:
        for line in islice(lines, count):
            row = json.loads(line)
            mask = row.get("mask")
            yield Example(
                row["name"],
                tuple(row["captions"]),
                partial(_open, folder, row["image"]),
                mask=partial(_open, folder, mask) if mask is not None else None,
            )


def _open(folder: Path, place: tuple[int, int] | str) -> IO[bytes]:
    """Open an image.

    Raises:
        DataError: There is none; the message is the clause that says why.
    """
    if isinstance(place, str):
        raise DataError(place)
    start, length = place
    with open(folder / IMAGES, "rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(length))


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Open a file for writing after its first `size` bytes; the rest is cut off."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file
