"""What differs between two commits, file by file, and line by line where it is small text."""

from __future__ import annotations

from typing import Any

import pygit2

from .store.git import Entry, GitRepo

TEXT_BYTES = 256 << 10
DIFF_BYTES = 100 << 10
DIFF_FILES = 100
DIFF_LINES = 400


def changes(git: GitRepo, old: str | None, new: str) -> list[dict[str, Any]]:
    """Return which files differ between two commits, small texts with their lines."""
    before = {entry.path: entry for entry in git.files(old)} if old else {}
    after = {entry.path: entry for entry in git.files(new)}
    found: list[dict[str, Any]] = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        if (was and was.oid) == (now and now.oid):
            continue
        word = "added" if was is None else "removed" if now is None else "changed"
        if len(found) == DIFF_FILES:
            found.append({"path": "…", "word": "and more", "lines": [], "size": 0})
            break
        size = now.size if now else was.size if was else 0
        found.append({"path": path, "word": word, "lines": _diff(git, was, now), "size": size})
    return found


def _diff(git: GitRepo, was: Entry | None, now: Entry | None) -> list[str]:
    texts = [text_of(git, entry) if entry else "" for entry in (was, now)]
    if any(text is None or len(text) > DIFF_BYTES for text in texts):
        return []
    # By libgit2, whose effort is bounded: that of difflib grows with the cube of the lines.
    old, new = ((text or "").encode() for text in texts)
    patch = pygit2.Patch.create_from(old, new, context_lines=2).data.decode("utf-8", "replace")
    lines = patch.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("@@")), len(lines))
    return lines[start : start + DIFF_LINES]


def text_of(git: GitRepo, entry: Entry) -> str | None:
    """Return the content of a file that is small text."""
    if entry.lfs or entry.size > TEXT_BYTES:
        return None
    content = git.read(entry.oid)
    if b"\0" in content:
        return None
    return content.decode("utf-8", "replace")
