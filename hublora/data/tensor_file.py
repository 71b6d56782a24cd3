"""A safetensors file that is written row by row; its full size and header come first.

The format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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
