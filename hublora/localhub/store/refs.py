"""The files behind refs: read while they move, replaced in one step, swept after a crash.

A ref is one small file below `refs/`, and whatever else lies there is taken for a ref by git. So
its next content is written beside `refs/`, under one name that the repo's lock guards, and renamed
into place: a reader finds the old commit or the new one, and a kill leaves at most that one file.
"""

from __future__ import annotations

import contextlib
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

import pygit2

from hublora.filesystem import sync_folder

from .disk import exclusive, make_folder, shared
from .errors import Conflict

PACKED = "packed-refs"
NEXT = "next-ref"
_MOVES = "refs"
_OID = re.compile("[0-9a-f]{40}")


def values(folder: Path) -> dict[str, str]:
    """Return the object id behind each ref of a bare repository, by its full name, sorted.

    Strays, and what somebody is just deleting, are left out.
    """
    found = _packed(folder)
    for place, _, files in os.walk(folder / "refs"):
        for file in files:
            path = Path(place) / file
            with contextlib.suppress(FileNotFoundError):
                found[path.relative_to(folder).as_posix()] = path.read_text("ascii", "replace")[:40]
    return {
        name: oid
        for name, oid in sorted(found.items())
        if _OID.fullmatch(oid) and pygit2.reference_is_valid_name(name)
    }


def _packed(folder: Path) -> dict[str, str]:
    """Return the refs that `git pack-refs`, which we never run, has put into one file."""
    try:
        lines = (folder / PACKED).read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}
    pairs = [line.split(" ", 1) for line in lines if " " in line and line[0] not in "#^"]
    return {name: oid for oid, name in pairs}


def moving(folder: Path) -> AbstractContextManager[None]:
    """Hold, while a ref of a repository moves or goes, what `standing_still` waits for."""
    return shared(folder.parents[1] / "locks" / _MOVES)


def standing_still(data: Path) -> AbstractContextManager[None]:
    """Hold still every ref of a data folder: for a moment, every commit waits for it."""
    return exclusive(data / "locks" / _MOVES)


def replace(folder: Path, ref: str, commit: str) -> None:
    """Make `ref` lead to `commit`, durably; the caller holds the repo's lock.

    Raises:
        Conflict: Another ref's name begins with this one, or the other way round.
    """
    path, fresh = folder / ref, folder / NEXT
    with fresh.open("wb") as file:
        file.write(f"{commit}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    try:
        with moving(folder):
            make_folder(path.parent)
            os.replace(fresh, path)
            sync_folder(path.parent)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
        raise Conflict(f"The name {ref} is in the way of another branch or tag.") from problem


def sweep(folder: Path) -> None:
    """Remove what a crash left beside and among the refs; the caller holds the repo's lock."""
    (folder / NEXT).unlink(missing_ok=True)
    for place, _, files in os.walk(folder / "refs", topdown=False):
        for file in files:
            if file.startswith(".") or file.endswith(".lock"):
                (Path(place) / file).unlink(missing_ok=True)
        # An empty folder is in the way of a ref of its name; git itself wants the outer ones.
        if Path(place).relative_to(folder).as_posix().count("/") > 1 and not os.listdir(place):
            os.rmdir(place)
