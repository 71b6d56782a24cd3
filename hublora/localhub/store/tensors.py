"""The header of a safetensors file: names, shapes and the author's metadata, without the weights.

Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path

_MAX_HEADER_BYTES = 8 << 20


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


@lru_cache(maxsize=500)
def read_header(path: Path) -> TensorFacts | None:
    """Return the facts of a file, or None if it is no safetensors file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                return None
            header = json.loads(file.read(length))
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        shapes = {
            str(name): (str(facts["dtype"]), tuple(int(size) for size in facts["shape"]))
            for name, facts in header.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return TensorFacts(metadata, shapes)
