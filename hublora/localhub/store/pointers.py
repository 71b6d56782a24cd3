"""Git LFS pointers: the small text that stands in a git tree for a large file.

Specification: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_POINTER_BYTES = 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]+\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize (\d{1,16})\n"
)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Names a large file by sha256 and size."""

    oid: str
    size: int

    def encode(self) -> bytes:
        """Return the text that goes into the git blob."""
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n"
        ).encode()


def decode(content: bytes) -> Pointer | None:
    """Return the pointer that `content` is, or None when it is an ordinary file."""
    match = _POINTER.fullmatch(content) if len(content) <= MAX_POINTER_BYTES else None
    return Pointer(match[1].decode(), int(match[2])) if match else None
