"""Rows of tensors in one safetensors file that is written incrementally and survives a crash.

    <folder>.lock          locked while writing; the system unlocks it when the process dies
    <folder>.partial/      being written: rows.safetensors, progress.json
    <folder>/              complete, by an atomic rename: rows.safetensors, index.json

The file has its full size and header from the first batch on. `progress.json` counts the rows
that are synced to the disk; later rows are written again after a crash. Both JSON files have the
CRC-32 of each field's rows, so that damaged ones are written again instead of trained on.

Over 300 lines because writing, resuming and reading share the file's format.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zlib import crc32

from hublora.errors import DataError
from hublora.filesystem import sync_folder, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

ROWS = "rows.safetensors"
INDEX = "index.json"
PROGRESS = "progress.json"
_CRC = "crc32"
_CHUNK = 1 << 24  # bytes that are read at a time
SECONDS_BETWEEN_SYNCS = 0.5

# First missing row -> batches of rows in order, each field -> tensor [n, …].
Produce = Callable[[int], Iterator["Mapping[str, Tensor]"]]


def open_rows(
    folder: Path, count: int, batch_size: int, about: Mapping[str, Any], produce: Produce
) -> tuple[dict[str, Tensor], bool]:
    """Return field -> memory-mapped tensor [count, …], and whether all rows were cached already.

    Safe to call from several processes at once: one writes, the others wait and read.

    Args:
        folder: Folder of the rows, named by a hash of everything that affects them.
        count: Number of rows, at least 1.
        batch_size: Rows that `produce` yields at a time. An unfinished file is continued only
            with the same number, so that its bytes equal those of a file written in one go.
        about: JSON values that describe the rows to people, written to index.json.
        produce: Yields the rows from a given one on; called only if rows are missing.

    Raises:
        DataError: The disk is full, or the folder cannot be written.
    """
    from huggingface_hub.utils import WeakFileLock

    if (rows := _complete_rows(folder, count)) is not None:
        return rows, True
    partial = folder.with_name(folder.name + ".partial")
    with ExitStack() as stack:
        with translated_disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(folder.with_name(folder.name + ".lock")))
        if (rows := _complete_rows(folder, count)) is not None:
            return rows, True
        sums = _write(partial, count, batch_size, produce)
        with translated_disk_errors(folder):
            _finish(partial, folder, {"rows": count, _CRC: sums, **about})
    return map_file(folder / ROWS), False


def count_done(folder: Path, count: int) -> int:
    """Return the number of rows that are on the disk now; they are not read."""
    if (folder / INDEX).is_file() and has_full_size(folder / ROWS, count):
        return count
    return int(_load(folder.with_name(folder.name + ".partial") / PROGRESS).get("rows", 0))


def _write(partial: Path, count: int, batch_size: int, produce: Produce) -> dict[str, int]:
    """Write partial/rows.safetensors, continuing where an earlier process stopped; return the
    checksum of each field."""
    path, progress = partial / ROWS, partial / PROGRESS
    done, sums = _resumable(path, progress, count, batch_size)
    if done == count:
        return sums
    with ExitStack() as opened:
        with translated_disk_errors(partial):
            partial.mkdir(exist_ok=True)
            if not done:
                progress.unlink(missing_ok=True)
            file = opened.enter_context(open(path, "r+b" if done else "w+b"))
            fields, start = read_header(path) if done else ([], 0)
        synced = time.monotonic()
        for batch in produce(done):
            with translated_disk_errors(partial):
                if not fields:
                    fields = fields_of(batch)
                    _check_space(partial, count * sum(field.row_bytes for field in fields))
                    start, header = write_header(file, fields, count)
                    sums = dict.fromkeys((field.name for field in fields), header)
                done += write_rows(file, fields, start, count, done, batch, sums)
                if done == count or time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                    record = {"rows": done, "count": count, "batch": batch_size, _CRC: sums}
                    _record(file, progress, record)
                    synced = time.monotonic()
    assert done == count, f"{done} of {count} rows were produced"
    return sums


def _record(file: IO[bytes], progress: Path, record: Mapping[str, Any]) -> None:
    """Sync the rows to the disk, then write their number to progress.json."""
    file.flush()
    os.fsync(file.fileno())
    write_atomically(progress, json.dumps(record))


def _finish(partial: Path, folder: Path, about: Mapping[str, Any]) -> None:
    """Rename the fully written `partial` folder to the complete one."""
    write_atomically(partial / INDEX, json.dumps(about, indent=2, ensure_ascii=False, default=str))
    if folder.exists():  # damaged
        shutil.rmtree(folder)
    os.replace(partial, folder)
    sync_folder(folder.parent)
    (folder / PROGRESS).unlink(missing_ok=True)


def _resumable(
    path: Path, progress: Path, count: int, batch_size: int
) -> tuple[int, dict[str, int]]:
    """Return how many rows of an unfinished file are valid, and their checksums."""
    record = _load(progress)
    done, sums = record.get("rows"), record.get(_CRC)
    same = record.get("count") == count and record.get("batch") == batch_size
    if not (same and isinstance(done, int) and isinstance(sums, dict)):
        return 0, {}
    if not has_full_size(path, count) or _checksums(path, count, done) != sums:
        return 0, {}
    return done, sums


def _complete_rows(folder: Path, count: int) -> dict[str, Tensor] | None:
    """Return the tensors of a complete file; None if it is missing or damaged."""
    path, sums = folder / ROWS, _load(folder / INDEX).get(_CRC)
    if sums is None or not has_full_size(path, count) or _checksums(path, count, count) != sums:
        return None
    return map_file(path)


def _checksums(path: Path, count: int, done: int) -> dict[str, int]:
    """Return field -> CRC-32 of the header and the field's first `done` of `count` rows."""
    fields, start = read_header(path)
    sums: dict[str, int] = {}
    with path.open("rb") as file:
        header = crc32(file.read(start))
        for field in fields:
            file.seek(start)
            left, checksum = done * field.row_bytes, header
            while content := file.read(min(left, _CHUNK)):
                left, checksum = left - len(content), crc32(content, checksum)
            sums[field.name] = checksum
            start += count * field.row_bytes
    return sums


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"The cache needs {_gigabytes(needed)} in {folder.parent}, but only "
            f"{_gigabytes(free)} is free.",
            "Free some space, or point HUBLORA_CACHE to another disk.",
        )


@contextmanager
def translated_disk_errors(folder: Path) -> Iterator[None]:
    """Translate errors of a full or read-only disk.

    Raises:
        DataError: The disk is full or read-only, or permission is missing.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"The disk with the cache is full ({folder.parent}).",
                "Free some space and run the same command again: it continues where it stopped.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise DataError(
                f"The cache folder {folder.parent} cannot be written ({error.strerror}).",
                "Point HUBLORA_CACHE to a folder that you may write to.",
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


@dataclass(frozen=True)
class Field:
    """One named tensor of the file.

    Attributes:
        name: Key of the tensor.
        dtype: Dtype by its name in safetensors, e.g. "F32".
        shape: Shape of one row.
        row_bytes: Bytes of one row.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    row_bytes: int


def write_rows(
    file: IO[bytes],
    fields: list[Field],
    start: int,
    count: int,
    row: int,
    batch: Mapping[str, Tensor],
    sums: dict[str, int],
) -> int:
    """Write the rows of `batch` from `row` on and return their number.

    Args:
        file: File with its header, opened for writing.
        fields: Fields in the order of the file.
        start: Offset of the data in bytes.
        count: Total number of rows.
        row: First row to write, from 0.
        batch: Field -> tensor [n, …] of the field's dtype.
        sums: Field -> CRC-32 of the rows before; updated in place.
    """
    import torch

    rows = len(next(iter(batch.values())))
    for field in fields:
        tensor = batch[field.name].detach().to("cpu").contiguous()
        assert tuple(tensor.shape[1:]) == field.shape, f"{field.name} changed its shape"
        file.seek(start + row * field.row_bytes)
        content = tensor.flatten().view(torch.uint8).numpy()
        file.write(content)
        sums[field.name] = crc32(content, sums[field.name])
        start += count * field.row_bytes
    return rows


def write_header(file: IO[bytes], fields: list[Field], count: int) -> tuple[int, int]:
    """Write the header and extend the file to its full size; return the data's offset in bytes and
    the CRC-32 of the header."""
    header: dict[str, Any] = {}
    offset = 0
    for field in fields:
        end = offset + count * field.row_bytes
        header[field.name] = {
            "dtype": field.dtype,
            "shape": [count, *field.shape],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    header_bytes = struct.pack("<Q", len(text)) + text
    file.write(header_bytes)
    file.truncate(len(header_bytes) + offset)
    return len(header_bytes), crc32(header_bytes)


def read_header(path: Path) -> tuple[list[Field], int]:
    """Return the fields of a file and the offset of their data in bytes.

    Raises:
        ValueError: The header cannot be parsed.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError("no header")
        length = struct.unpack("<Q", prefix)[0]
        header = json.loads(file.read(min(length, 1 << 20)))
    fields = []
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        rows, *shape = entry["shape"]
        fields.append(Field(name, entry["dtype"], tuple(shape), (end - begin) // rows))
    return fields, 8 + length


def fields_of(batch: Mapping[str, Tensor]) -> list[Field]:
    """Return the fields of a file with rows like those of `batch`, in the file's order."""
    import torch

    names = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    # Widest dtype first, so that every tensor is aligned to its own width.
    tensors = sorted(batch.items(), key=lambda item: -item[1].element_size())
    return [
        Field(
            name,
            names[tensor.dtype],
            tuple(tensor.shape[1:]),
            tensor[0].numel() * tensor.element_size(),
        )
        for name, tensor in tensors
    ]


def has_full_size(path: Path, count: int) -> bool:
    """Return whether a file has a valid header and the size of `count` rows."""
    try:
        fields, start = read_header(path)
        return path.stat().st_size == start + count * sum(field.row_bytes for field in fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return False


def map_file(path: Path) -> dict[str, Tensor]:
    """Return name -> memory-mapped tensor."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
