"""The files behind refs: read while they move, replaced in one step, swept after a crash.

A ref is one small file below `refs/`, and whatever else lies there is taken for a ref by git. So
its next content is written beside `refs/`, under one name that the repo's lock guards, and renamed
into place: a reader finds the old commit or the new one, and a kill leaves at most that one file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pygit2

from hublora.filesystem import sync_folder

from .disk import make_folder
from .errors import Conflict

_NEXT = "next-ref"


def names(folder: Path) -> list[str]:
    """Return the full names of the refs of a bare repository, sorted; strays are none of them."""
    found = set(_packed(folder))
    for place, _, files in os.walk(folder / "refs"):
        found.update(f"{Path(place).relative_to(folder).as_posix()}/{file}" for file in files)
    return sorted(name for name in found if pygit2.reference_is_valid_name(name))


def _packed(folder: Path) -> list[str]:
    """Return the refs that `git pack-refs`, which we never run, has put into one file."""
    try:
        lines = (folder / "packed-refs").read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.split(" ", 1)[1] for line in lines if " " in line and line[0] not in "#^"]


def replace(folder: Path, ref: str, commit: str) -> None:
    """Make `ref` lead to `commit`, durably; the caller holds the repo's lock.

    Raises:
        Conflict: Another ref's name begins with this one, or the other way round.
    """
    path, fresh = folder / ref, folder / _NEXT
    with fresh.open("wb") as file:
        file.write(f"{commit}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    try:
        make_folder(path.parent)
        os.replace(fresh, path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
        raise Conflict(f"The name {ref} is in the way of another branch or tag.") from problem
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what a crash left beside and among the refs; the caller holds the repo's lock."""
    (folder / _NEXT).unlink(missing_ok=True)
    for place, _, files in os.walk(folder / "refs", topdown=False):
        for file in files:
            if file.startswith(".") or file.endswith(".lock"):
                (Path(place) / file).unlink(missing_ok=True)
        # An empty folder is in the way of a ref of its name; git itself wants the outer ones.
        if Path(place).relative_to(folder).as_posix().count("/") > 1 and not os.listdir(place):
            os.rmdir(place)
