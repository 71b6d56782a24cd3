"""What a commit does to a tree, operation by operation."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import pygit2
from pygit2.enums import FileMode

from .errors import EntryNotFound, InvalidPath, Malformed
from .names import check_path
from .pointers import Pointer


@dataclass(frozen=True)
class PutFile:
    """Write an ordinary file; its blob (a git id) is already staged."""

    path: str
    blob: str


@dataclass(frozen=True)
class PutLarge:
    """Write the pointer of a large file."""

    path: str
    pointer: Pointer


@dataclass(frozen=True)
class DeleteFile:
    """Remove a file, or a folder with everything in it; it must be there."""

    path: str


@dataclass(frozen=True)
class DeleteFolder:
    """Remove a folder that must be there, with everything in it."""

    path: str


Operation = PutFile | PutLarge | DeleteFile | DeleteFolder


def change(index: pygit2.Index, operations: Iterable[Operation], base: str | None) -> None:
    """Carry out operations on an index in their order, pointers written as blobs before.

    A file whose place is taken by a folder, or the other way round, waits for the end: the same
    commit may delete what is in its way, before or after.

    Raises:
        EntryNotFound: Something to delete is not there; `base` is where it was looked for.
        Malformed: A path cannot be one, or something is in its way to the end.
    """
    waiting: list[PutFile] = []
    for operation in operations:
        path = check_path(operation.path)
        match operation:
            case PutFile():
                if _in_the_way(index, path):
                    waiting.append(operation)
                else:
                    _put(index, operation)
            case DeleteFile() if path in index:
                index.remove(path)
            # The clients name a folder like a file when its path has no slash at the end.
            case DeleteFile() | DeleteFolder():
                if not _is_folder(index, path):
                    what = "file" if isinstance(operation, DeleteFile) else "folder"
                    message = f"A {what} with this name doesn't exist: {path}"
                    raise EntryNotFound(path, base, message)
                index.remove_directory(path)
            case PutLarge():
                raise TypeError("a pointer becomes a blob before it gets here")
    for put in waiting:
        if reason := _in_the_way(index, put.path):
            raise Malformed(f"{put.path} cannot be written: {reason}.", _ADVICE)
        _put(index, put)


_ADVICE = "Delete it in the same commit to put something else in its place."


def _put(index: pygit2.Index, put: PutFile) -> None:
    try:
        index.add(pygit2.IndexEntry(put.path, pygit2.Oid(hex=put.blob), FileMode.BLOB))
    except (OSError, ValueError, pygit2.GitError) as problem:
        raise InvalidPath(f"Invalid path: {put.path}") from problem


def _in_the_way(index: pygit2.Index, path: str) -> str | None:
    """Return what keeps a file from being at `path`, as words."""
    if _is_folder(index, path):
        return f"'{path}' is a folder"
    parts = path.split("/")
    above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return next((f"'{place}' is a file" for place in above if place in index), None)


def _is_folder(index: pygit2.Index, path: str) -> bool:
    """Tell whether something is below `path`; the index is sorted, so this takes few looks."""
    inside = f"{path}/".encode()
    low, high = 0, len(index)
    while low < high:
        middle = (low + high) // 2
        if os.fsencode(index[middle].path) < inside:
            low = middle + 1
        else:
            high = middle
    return low < len(index) and os.fsencode(index[low].path).startswith(inside)
