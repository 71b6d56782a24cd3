"""Rows of tensors in one safetensors file that is written over time and never half trusted.

    <folder>.lock          held while writing; the system lets it go when the process dies
    <folder>.partial/      being written: rows.safetensors, progress.json
    <folder>/              complete, by an atomic rename: rows.safetensors, index.json

The file has its full size and header from the first batch on. `progress.json` counts the rows
that are on the disk; what lies beyond it is written again after a crash.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hublora.data.tensor_file import (
    fields_of,
    has_full_size,
    lay_out_file,
    map_file,
    read_header,
    write_rows,
)
from hublora.errors import DataError
from hublora.filesystem import sync_folder, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

ROWS = "rows.safetensors"
INDEX = "index.json"
PROGRESS = "progress.json"
SECONDS_BETWEEN_SYNCS = 0.5

# Given the first row that is missing, yields batches of rows in order: field -> [n, …].
Produce = Callable[[int], Iterator["Mapping[str, Tensor]"]]


def open_rows(
    folder: Path, count: int, batch_size: int, about: Mapping[str, Any], produce: Produce
) -> tuple[dict[str, Tensor], bool]:
    """Return field -> memory-mapped tensor [count, …], and whether they were there already.

    Safe to call from several processes at once: one writes, the others wait and reuse.

    Args:
        folder: Where the rows lie; its name stands for everything that affects them.
        count: Number of rows, at least 1.
        batch_size: Rows that `produce` yields at a time; a resumed file goes on only if it is
            the same, so that it ends in the same bytes as one that was written in one go.
        about: What the rows are made of, for people: goes into index.json.
        produce: Called only if rows are missing.

    Raises:
        DataError: The disk is full, or the folder cannot be written.
    """
    from huggingface_hub.utils import WeakFileLock

    if _is_complete(folder, count):
        return map_file(folder / ROWS), True
    partial = folder.with_name(folder.name + ".partial")
    with ExitStack() as held:
        with explained(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(WeakFileLock(folder.with_name(folder.name + ".lock")))
        if _is_complete(folder, count):
            return map_file(folder / ROWS), True
        _write(partial, count, batch_size, produce)
        with explained(folder):
            _finish(partial, folder, {"rows": count, **about})
    return map_file(folder / ROWS), False


def count_done(folder: Path, count: int) -> int:
    """Return how many rows need not be produced any more, as far as can be told now."""
    if _is_complete(folder, count):
        return count
    return int(_load(folder.with_name(folder.name + ".partial") / PROGRESS).get("rows", 0))


def _write(partial: Path, count: int, batch_size: int, produce: Produce) -> None:
    """Fill partial/rows.safetensors, going on where an earlier process stopped."""
    path, progress = partial / ROWS, partial / PROGRESS
    done = _resumable(path, progress, count, batch_size)
    if done == count:
        return
    with ExitStack() as opened:
        with explained(partial):
            partial.mkdir(exist_ok=True)
            if not done:
                progress.unlink(missing_ok=True)
            file = opened.enter_context(open(path, "r+b" if done else "w+b"))
            fields, start = read_header(path) if done else ([], 0)
        synced = time.monotonic()
        for batch in produce(done):
            with explained(partial):
                if not fields:
                    fields = fields_of(batch)
                    _check_space(partial, count * sum(field.row_bytes for field in fields))
                    start = lay_out_file(file, fields, count)
                done += write_rows(file, fields, start, count, done, batch)
                if done == count or time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                    _record(file, progress, {"rows": done, "count": count, "batch": batch_size})
                    synced = time.monotonic()
    assert done == count, f"{done} of {count} rows were produced"


def _record(file: IO[bytes], progress: Path, record: Mapping[str, int]) -> None:
    """Bring the rows to the disk, then say so."""
    file.flush()
    os.fsync(file.fileno())
    write_atomically(progress, json.dumps(record))


def _finish(partial: Path, folder: Path, about: Mapping[str, Any]) -> None:
    """Turn a full `partial` folder into the complete one."""
    write_atomically(partial / INDEX, json.dumps(about, indent=2, ensure_ascii=False, default=str))
    if folder.exists():  # damaged: of another size than its header says
        shutil.rmtree(folder)
    os.replace(partial, folder)
    sync_folder(folder.parent)
    (folder / PROGRESS).unlink(missing_ok=True)


def _resumable(path: Path, progress: Path, count: int, batch_size: int) -> int:
    """Return how many rows of an unfinished file can be kept."""
    record = _load(progress)
    same = record.get("count") == count and record.get("batch") == batch_size
    return int(record["rows"]) if same and has_full_size(path, count) else 0


def _is_complete(folder: Path, count: int) -> bool:
    return (folder / INDEX).is_file() and has_full_size(folder / ROWS, count)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"The cache needs {_gigabytes(needed)} in {folder.parent} and only "
            f"{_gigabytes(free)} is free there.",
            "Make room, or point HUBLORA_CACHE to another disk.",
        )


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what a disk refuses into a sentence.

    Raises:
        DataError: The disk is full, read-only, or not ours to write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"The disk with the cache is full ({folder.parent}).",
                "Make room and run the same command again: it goes on where it stopped.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise DataError(
                f"The cache folder {folder.parent} cannot be written ({error.strerror}).",
                "Point HUBLORA_CACHE to a folder of yours.",
            ) from error
        raise


def _load(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size > 1e8 else f"{size / 1e6:.1f} MB"
