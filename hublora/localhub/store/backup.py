"""Copying a data folder while it is in use.

Order is what makes the copy whole: the database first (by SQLite's own backup), then large files
and repositories, which only ever grow under a name. So all that the copied database speaks of is
there; what came later is merely extra.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from .disk import make_folder, sync_file
from .errors import Malformed

if TYPE_CHECKING:
    from . import Store

_IMMUTABLE = frozenset({".pack", ".idx"})


def back_up(store: Store, target: Path) -> tuple[int, int]:
    """Copy everything to `target`; return how many files and bytes were copied this time.

    Raises:
        Malformed: `target` lies in what is to be copied.
    """
    if target.resolve().is_relative_to(store.folder.resolve()):
        raise Malformed(f"{target} lies in the Hub's own folder; back up to a place outside it.")
    make_folder(target)
    os.chmod(target, 0o700)
    _copy_database(store.database.path, target / "hub.sqlite")
    copied = size = 0
    for name in ("secret", "owner-token"):
        if (store.folder / name).exists():
            shutil.copy2(store.folder / name, target / name)
    for path in sorted((store.folder / "lfs").glob("??/*")):
        copied, size = _add((copied, size), _copy(path, store.folder, target, immutable=True))
    for repo in store.repos.all():
        folder = store.folder / "repos" / f"{repo.id}.git"
        with store.lock(repo):
            # Objects before refs: a copied ref never points to what is not copied.
            files = sorted(
                (p for p in folder.rglob("*") if p.is_file()),
                key=lambda p: "objects" not in p.parts,
            )
            for path in files:
                done = _copy(path, store.folder, target, path.suffix in _IMMUTABLE)
                copied, size = _add((copied, size), done)
    return copied, size


def _copy_database(source: Path, target: Path) -> None:
    reading, writing = sqlite3.connect(source), sqlite3.connect(target)
    try:
        reading.backup(writing)
    finally:
        reading.close()
        writing.close()
    os.chmod(target, 0o600)


def _copy(path: Path, base: Path, target: Path, immutable: bool) -> tuple[int, int]:
    place = target / path.relative_to(base)
    length = path.stat().st_size
    if immutable and place.exists() and place.stat().st_size == length:
        return 0, 0
    make_folder(place.parent)
    temporary = place.with_name(f"{place.name}.new")
    shutil.copy2(path, temporary)
    sync_file(temporary)
    temporary.replace(place)
    return 1, length


def _add(total: tuple[int, int], more: tuple[int, int]) -> tuple[int, int]:
    return total[0] + more[0], total[1] + more[1]
