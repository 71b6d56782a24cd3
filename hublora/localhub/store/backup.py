"""Copying a data folder while it is in use.

The copy is a state that the Hub was in at one moment, what a kill at that moment would have left:
the state that every start mends. For that moment all refs stand still, and while they do, they are
read and SQLite copies the database. Everything else is then copied at leisure, because it is still
there however much later: a commit's objects and large files are in place before its ref moves,
packs go only when others hold all that they held, deleted repos wait in the trash, and `gc` waits.

So the order is: refs and database (read), large files and objects (copied beside what the target
has, which stays whole meanwhile), refs and database (put in place), then away with what the target
has and the copy does not. Whoever is killed while refs and database are put in place leaves a mark,
and nobody opens the half-and-half of two states by mistake.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import refs
from .disk import exclusive_if_free, make_folder
from .errors import Conflict, Malformed
from .packing import SUPERSEDED

if TYPE_CHECKING:
    from . import Store

_UNFINISHED = "backup-unfinished"
_DATABASE = "hub.sqlite"
_TRIES = 20


@dataclass
class Copied:
    """What a backup copied this time, and what it could not."""

    files: int = 0
    size: int = 0  # bytes
    missing: list[str] = field(default_factory=list)  # paths in the data folder that are not there


def check_finished(folder: Path) -> None:
    """Refuse a backup that was cut short while it was brought up to date.

    Raises:
        Conflict: It was.
    """
    if (folder / _UNFINISHED).exists():
        raise Conflict(
            f"{folder} is a backup that was interrupted while it was brought up to date.",
            f"Run `hublora hub backup` to it once more; if the original is lost, delete"
            f" {folder / _UNFINISHED}: some branches then stand where the backup before had them.",
        )


def back_up(store: Store, target: Path) -> Copied:
    """Copy everything to `target`, which ends up holding that and nothing else.

    Raises:
        Malformed: `target` lies in what is to be copied.
        Conflict: A Hub serves `target`.
    """
    if target.resolve().is_relative_to(store.folder.resolve()):
        raise Malformed(f"{target} lies in the Hub's own folder; back up to a place outside it.")
    make_folder(target / "locks")
    os.chmod(target, 0o700)
    with store.housekeeping(), exclusive_if_free(target / "locks" / "server") as free:
        if not free:
            raise Conflict(f"A Hub serves {target}.", "Stop it, or back up to another place.")
        return _Backup(store, target).run()


class _Backup:
    """One backup, while the source's `housekeeping` is held."""

    def __init__(self, store: Store, target: Path) -> None:
        self._source, self._target = store.folder, target
        self._database = store.database.path
        self._copied = Copied()

    def run(self) -> Copied:
        """Copy, in the order that keeps source and target whole."""
        fresh = self._target / f"{_DATABASE}.new"
        with refs.standing_still(self._source):
            standing = {p.stem: refs.values(p) for p in (self._source / "repos").glob("*.git")}
            _copy_database(self._database, fresh)
        repos, large = _told(fresh)
        wanted = {self._large(oid) for oid in large}
        for repo_id in repos:
            wanted |= self._objects(repo_id)
        os.sync()
        mark = self._target / _UNFINISHED
        mark.touch()
        os.sync()
        for repo_id in repos:
            _put_refs(self._target / "repos" / f"{repo_id}.git", standing.get(repo_id, {}))
        for name in ("secret", "owner-token"):
            if (self._source / name).exists():
                self._copy(self._source / name, self._target / name)
        for left in ("-wal", "-shm"):  # of somebody who looked into the copy
            (self._target / f"{_DATABASE}{left}").unlink(missing_ok=True)
        fresh.replace(self._target / _DATABASE)
        os.sync()
        mark.unlink()
        self._prune(repos, wanted)
        return self._copied

    def _large(self, oid: str) -> Path:
        """Copy a large file unless the target has it; return its place there."""
        place = Path("lfs", oid[:2], oid)
        try:
            self._add(self._source / place, self._target / place)
        except FileNotFoundError:
            self._copied.missing.append(str(place))
        return self._target / place

    def _objects(self, repo_id: str) -> set[Path]:
        """Copy a repo's packs unless the target has them; return their places there."""
        places = (self._source / "repos" / f"{repo_id}.git", self._source / "trash" / repo_id)
        target = self._target / "repos" / f"{repo_id}.git"
        for _ in range(_TRIES):
            place = next((place for place in places if place.exists()), None)
            if place is None:
                self._copied.missing.append(f"repos/{repo_id}.git")
                return set()
            try:
                return self._copy_objects(place, target)
            except FileNotFoundError:
                # Packs were joined, or the repo was deleted: what there is now has all of it too.
                continue
        raise Conflict(f"The repository {places[0]} changed all the time.", "Try again.")

    def _copy_objects(self, folder: Path, target: Path) -> set[Path]:
        # git looks for the index first, so the pack must be there before it.
        found = sorted(_files(folder / "objects"), key=lambda path: path.suffix == ".idx")
        for path in found:
            self._add(path, target / path.relative_to(folder))
        for name in ("HEAD", "config"):
            self._copy(folder / name, target / name)
        make_folder(target / "refs" / "heads")
        return {target / path.relative_to(folder) for path in found}

    def _add(self, path: Path, place: Path) -> None:
        """Copy a file whose content never changes under its name."""
        size = path.stat().st_size
        if not place.exists() or place.stat().st_size != size:
            self._copy(path, place)
            self._copied.files += 1
            self._copied.size += size

    def _copy(self, path: Path, place: Path) -> None:
        make_folder(place.parent)
        temporary = place.with_name(f"{place.name}.new")
        shutil.copy2(path, temporary)
        temporary.replace(place)

    def _prune(self, repos: set[str], wanted: set[Path]) -> None:
        """Remove what the target had, or was left half-copied, and the copy has not."""
        for folder in (self._target / "repos").glob("*.git"):
            if folder.stem not in repos:
                shutil.rmtree(folder)
                continue
            # The index first: a pack without one is not looked at.
            _remove(_files(folder / "objects"), wanted, lambda path: path.suffix != ".idx")
        _remove((self._target / "lfs").glob("??/*"), wanted)


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    reading, writing = sqlite3.connect(source), sqlite3.connect(target)
    try:
        reading.backup(writing)
    finally:
        reading.close()
        writing.close()
    os.chmod(target, 0o600)


def _told(database: Path) -> tuple[set[str], set[str]]:
    """Return the ids of the repos and large files that a database speaks of."""
    reading = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    try:
        repos = {row[0] for row in reading.execute("SELECT id FROM repos")}
        return repos, {row[0] for row in reading.execute("SELECT DISTINCT oid FROM large_files")}
    finally:
        reading.close()


def _put_refs(folder: Path, wanted: dict[str, str]) -> None:
    """Make the refs of a copied repository those, in an order in which no name is in the way."""
    (folder / refs.PACKED).unlink(missing_ok=True)
    present = refs.values(folder)
    for name in present.keys() - wanted.keys():
        (folder / name).unlink()
    refs.sweep(folder)
    for name, oid in wanted.items():
        if present.get(name) != oid:
            make_folder((folder / name).parent)
            (folder / refs.NEXT).write_text(f"{oid}\n")
            (folder / refs.NEXT).replace(folder / name)


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder of objects, without what is no object yet or any more."""
    return [p for p in folder.rglob("*") if p.is_file() and SUPERSEDED not in p.name]


def _remove(
    found: Iterable[Path], wanted: set[Path], order: Callable[[Path], bool] | None = None
) -> None:
    for path in sorted(found, key=order):
        if path not in wanted:
            path.unlink(missing_ok=True)
