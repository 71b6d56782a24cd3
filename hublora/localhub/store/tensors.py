"""The header of a safetensors file: names, shapes and the author's metadata, without the weights.

Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

_MAX_HEADER_BYTES = 4 << 20
_MAX_TENSORS = 50_000
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class TensorFacts:
    """What a safetensors header says."""

    metadata: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, int]:
        """How many numbers there are of each type."""
        counts: dict[str, int] = {}
        for dtype, shape in self.shapes.values():
            counts[dtype] = counts.get(dtype, 0) + prod(shape)
        return counts


@lru_cache(maxsize=10_000)
def parameters(path: Path) -> Mapping[str, int]:
    """Return how many numbers of each type a file holds; none if it is no safetensors file."""
    header = read_header(path)
    return MappingProxyType(header.parameters if header else {})


def read_header(path: Path) -> TensorFacts | None:
    """Return the facts of a file, or None if it is no safetensors file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                return None
            header = json.loads(file.read(length))
            held = os.fstat(file.fileno()).st_size - 8 - length
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        if len(header) > _MAX_TENSORS:
            return None
        shapes = {
            str(name): (str(facts["dtype"]), _shape(facts, held)) for name, facts in header.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return TensorFacts(metadata, shapes)


def _shape(facts: dict[str, Any], held: int) -> tuple[int, ...]:
    """Return the shape of a tensor whose bytes are among the `held` ones of the file.

    Raises:
        ValueError: They are not, or are not as many as the shape and the type say.
    """
    shape, (begin, end) = facts["shape"], facts["data_offsets"]
    if not all(type(number) is int and 0 <= number <= held for number in (begin, end)):
        raise ValueError("the bytes are outside of the file")
    # A dimension of 0 makes all the others free; more than the file's bits fit into none.
    if not all(type(size) is int and 0 <= size <= 8 * held for size in shape) or len(shape) > 64:
        raise ValueError("this is no shape")
    bits = prod(shape) * _BITS[facts["dtype"]]
    if begin > end or bits > 8 * (end - begin) or bits <= 8 * (end - begin - 1):
        raise ValueError("shape and bytes differ")
    return tuple(shape)
