"""Where files are, and the pages about them."""

from __future__ import annotations

from .markdown import quoted


def file_address(place: str, revision: str, path: str) -> str:
    """Return where the content of a file is; `place` is the repo's, `datasets/me/images`."""
    return f"/{place}/resolve/{quoted(revision)}/{quoted(path)}"


def page_address(place: str, revision: str, path: str) -> str:
    """Return where the page about a file is."""
    return f"/{place}/blob/{quoted(revision)}/{quoted(path)}"
