"""Damages a file on disk as failing hardware does."""

from __future__ import annotations

from pathlib import Path


def flip_first_byte(path: Path) -> None:
    """Change one bit: never to the same content, whatever the file holds."""
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
