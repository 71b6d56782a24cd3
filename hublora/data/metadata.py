"""Reads metadata.jsonl and metadata.csv, whose lines have an image's file name and captions."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hublora.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl")


def read_metadata(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metadata file; empty cells are None.

    Raises:
        DataError: The file cannot be parsed; the message has the line number.
    """
    return _READERS[path.name](path)


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    # Not splitlines(): a caption may hold U+2028, which JSON does not escape.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"Line {number} of {path.name} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"Line {number} of {path.name} is not a JSON object.")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        rows = list(csv.DictReader(_read_text(path).splitlines(keepends=True), strict=True))
    except csv.Error as error:
        raise DataError(f"{path.name} is not CSV: {error}.") from error
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise DataError(
                f"Line {number} of {path.name} has more cells than the first line has columns.",
                'Put captions with commas in double quotes: a.png,"a cat, a dog"',
            )
    return [{name: value or None for name, value in row.items()} for row in rows]


_READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = dict(
    zip(METADATA, (_read_csv, _read_jsonl), strict=True)
)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text.", "Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from error
