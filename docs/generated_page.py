"""Writes a page of the reference, or tells whether it is in step with its source."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(page: Path, text: str, source: str) -> int:
    """Write `text` to `page`; with the argument `--check` only compare. Return the exit status."""
    if sys.argv[1:] == ["--check"]:
        if page.is_file() and page.read_text(encoding="utf-8") == text:
            return 0
        print(f"{page.name} is out of step with {source}: run `make docs`", file=sys.stderr)
        return 1
    page.write_text(text, encoding="utf-8")
    return 0
