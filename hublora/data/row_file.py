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
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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


if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Field:
    """One named tensor of the file: `count` rows of `shape` and `dtype` (safetensors' name)."""

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
) -> int:
    """Write the rows of `batch` from `row` on; return how many they are.

    Args:
        fields: In the order of the file.
        start: Where the data starts, in bytes.
        count: Rows of the whole file.
        batch: Field -> [n, …], in the fields' dtypes.
    """
    import torch

    rows = len(next(iter(batch.values())))
    for field in fields:
        tensor = batch[field.name].detach().to("cpu").contiguous()
        assert tuple(tensor.shape[1:]) == field.shape, f"{field.name} changed its shape"
        file.seek(start + row * field.row_bytes)
        file.write(tensor.flatten().view(torch.uint8).numpy())
        start += count * field.row_bytes
    return rows


def lay_out_file(file: IO[bytes], fields: list[Field], count: int) -> int:
    """Write the header, give the file its full size, return where the data starts."""
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
    file.write(struct.pack("<Q", len(text)) + text)
    file.truncate(8 + len(text) + offset)
    return 8 + len(text)


def read_header(path: Path) -> tuple[list[Field], int]:
    """Return the fields of a file and where their data starts.

    Raises:
        ValueError: It has no readable header.
        OSError: It cannot be read.
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
    """Return what a file with rows such as those of `batch` consists of, in its order."""
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
    # Widest first, so that every tensor is aligned to its own width.
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
    """Tell whether a file has a readable header and is as long as `count` rows of it are."""
    try:
        fields, start = read_header(path)
        return path.stat().st_size == start + count * sum(field.row_bytes for field in fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return False


def map_file(path: Path) -> dict[str, Tensor]:
    """Return name -> tensor, memory-mapped: only what is read is loaded."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
