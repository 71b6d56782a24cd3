"""Headers of safetensors files, read from a file or by range, believed only as far as they add up.

Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON header, data).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.errors import AdapterError

MAX_HEADER = 100_000_000  # bytes; the limit of the format's reference implementation
ReadRange = Callable[[int, int], bytes]  # (offset, length) -> bytes


@dataclass(frozen=True)
class Header:
    """The JSON header of a safetensors file.

    Attributes:
        metadata: Its `__metadata__`, strings to strings.
        shapes: Tensor name -> shape.
        dtypes: Tensor name -> type, e.g. "F16".
        data_bytes: Bytes of tensor data that the header promises.
        header_bytes: Bytes before the data.
    """

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    data_bytes: int
    header_bytes: int


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
        return _parse_header(json.loads(text), 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterError(
            f"The header of {name} does not parse.", "Download it again; it may be cut short."
        ) from error


def read_file_header(path: Path) -> Header:
    """Parse the header of a local file and check that the file is whole.

    Raises:
        AdapterError: It is not a safetensors file, or is cut short.
    """
    with _opened(path) as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        header = read_header(read, path.name)
    promised = header.header_bytes + header.data_bytes
    size = path.stat().st_size
    if size != promised:
        raise AdapterError(
            f"{path.name} is damaged: it has {size:,} bytes, its header promises {promised:,}.",
            "Download it again.",
        )
    return header


def _parse_header(entries: dict[str, Any], header_bytes: int) -> Header:
    """Return the header; any exception means that it is not what the format says."""
    metadata = entries.pop("__metadata__", None) or {}
    if not all(isinstance(text, str) for text in metadata.values()):
        raise TypeError("metadata that is not text")
    shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
    if not all(type(size) is int and size >= 0 for shape in shapes.values() for size in shape):
        raise TypeError("a shape that is not of whole numbers")
    dtypes = {key: str(entry["dtype"]) for key, entry in entries.items()}
    reached = 0  # the data of one tensor begins where that of another ends: no gaps, no overlaps
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in entries.values()):
        if begin != reached or end < begin:
            raise ValueError("data that overlaps or has gaps")
        reached = end
    return Header(metadata, shapes, dtypes, reached, header_bytes)


def _opened(path: Path) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise AdapterError(f"{path} cannot be opened: {error.strerror}.") from error


def _not_safetensors(start: bytes) -> str:
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        return "It is a pickle file, which can run code when it is opened: ask for safetensors."
    return "It may be cut short or a web page saved under that name: download it again."
