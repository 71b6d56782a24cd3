"""Reads and validates headers of safetensors files, local or by range requests.

Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON header, data).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hublora.errors import AdapterError

MAX_HEADER = 32 << 20  # bytes; the format allows 100 MB, the longest known have 10 of captions
_MOST_DIMENSIONS, _MOST_SIZE = 16, 1 << 48  # of a shape, so that products of them stay cheap
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "F16": 16, "BF16": 16}
_BITS |= {"U16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
_NUMBERS = {"F16": ("e", 2), "BF16": ("f", 2), "F32": ("f", 4), "F64": ("d", 8), "I64": ("q", 8)}
ReadRange = Callable[[int, int], bytes]  # (offset, length) -> bytes


@dataclass(frozen=True)
class Header:
    """The JSON header of a safetensors file.

    Attributes:
        metadata: `__metadata__`, strings to strings.
        shapes: Tensor name -> shape.
        dtypes: Tensor name -> type, e.g. "F16".
        data_bytes: Bytes of tensor data that the header states.
        header_bytes: Bytes before the data.
        offsets: Tensor name -> offset of its data from the start of the file, in bytes.
    """

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    data_bytes: int
    header_bytes: int
    offsets: Mapping[str, int] = field(default_factory=dict)


def read_header(read: ReadRange, name: str) -> Header:
    """Parse a header through `read`, which may be a file or HTTP range requests.

    Raises:
        AdapterError: It is not a safetensors file.
    """
    start = read(0, 8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= MAX_HEADER:
        raise AdapterError(f"{name} is not a safetensors file.", _not_safetensors(start))
    text = read(8, length)
    try:
        return _parse_header(json.loads(text, object_pairs_hook=_unique), 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterError(
            f"The header of {name} is not valid.", "Download it again; it may be truncated."
        ) from error


def read_file_header(path: Path) -> Header:
    """Parse the header of a local file and check that the file is complete.

    Raises:
        AdapterError: It is not a safetensors file, or is truncated.
    """
    header = read_header(file_reader(path), path.name)
    check_size(header, path.stat().st_size, path.name)
    return header


def file_reader(path: Path) -> ReadRange:
    """Return a function that reads (offset, length) of a local file.

    Raises:
        AdapterError: From the function, when the file cannot be opened.
    """

    def read(offset: int, length: int) -> bytes:
        with _opened(path) as file:
            file.seek(offset)
            data: bytes = file.read(length)
            return data

    return read


def check_size(header: Header, size: int, name: str) -> None:
    """Check that a file has the size that its header states.

    Raises:
        AdapterError: It is truncated, or longer.
    """
    stated = header.header_bytes + header.data_bytes
    if size != stated:
        raise AdapterError(
            f"{name} is damaged: it has {size:,} bytes, its header states {stated:,}.",
            "Download it again.",
        )


def read_number(read: ReadRange, header: Header, name: str) -> float | None:
    """Return the value of a tensor with one element, None for any other or another type.

    Args:
        read: As for `read_header`.
        header: Header of the same file.
        name: Name of the tensor.
    """
    kind = _NUMBERS.get(header.dtypes[name])
    if kind is None or math.prod(header.shapes[name]) != 1:
        return None
    code, size = kind
    data = read(header.offsets[name], size)
    if len(data) != size:
        return None
    if header.dtypes[name] == "BF16":  # the upper half of a float32
        data = b"\0\0" + data
    number = float(struct.unpack("<" + code, data)[0])
    return number if math.isfinite(number) else None


def _parse_header(entries: dict[str, Any], header_bytes: int) -> Header:
    """Return the header; any exception means that it violates the format."""
    metadata = entries.pop("__metadata__", None) or {}
    if not all(isinstance(text, str) for text in metadata.values()):
        raise TypeError("metadata must be strings")
    shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
    if not all(len(shape) <= _MOST_DIMENSIONS for shape in shapes.values()):
        raise ValueError("shapes must have few dimensions")
    if not all(
        type(size) is int and 0 <= size < _MOST_SIZE for shape in shapes.values() for size in shape
    ):
        raise TypeError("shapes must be of integers")
    dtypes = {key: str(entry["dtype"]) for key, entry in entries.items()}
    reached = 0  # the data of one tensor begins where that of another ends: no gaps, no overlaps
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in entries.values()):
        if begin != reached or end < begin:
            raise ValueError("data must not overlap or have gaps")
        reached = end
    for key, entry in entries.items():
        bits = _BITS.get(dtypes[key])
        begin, end = entry["data_offsets"]
        if bits and (end - begin) * 8 != math.prod(shapes[key]) * bits:
            raise ValueError("data must have the size of its shape")
    offsets = {key: header_bytes + entry["data_offsets"][0] for key, entry in entries.items()}
    return Header(metadata, shapes, dtypes, reached, header_bytes, offsets)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; JSON readers differ on which of two equal names counts."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate name")
    return members


def _opened(path: Path) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise AdapterError(f"{path} cannot be opened: {error.strerror}.") from error


def _not_safetensors(start: bytes) -> str:
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        return "It is a pickle file, which can run code when it is opened: ask for safetensors."
    if start == b"version ":
        return "It is a pointer of git-lfs to the file: fetch the file itself with git lfs pull."
    return "It may be truncated or a web page saved under that name: download it again."
