"""Cached results in JSON files with a checksum; one that is damaged counts as missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

from hublora.filesystem import write_atomically


def write_checked(path: Path, value: Any) -> None:
    """Write a JSON value with its CRC-32.

    Raises:
        OSError: The file cannot be written.
    """
    write_atomically(path, json.dumps({"value": value, "crc32": _checksum(value)}))


def read_checked(path: Path) -> Any:
    """Return the value of a file that `write_checked` wrote; None if it is missing or damaged."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        value, checksum = saved["value"], saved["crc32"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return value if checksum == _checksum(value) else None


def _checksum(value: Any) -> int:
    return crc32(json.dumps(value, sort_keys=True).encode())
