"""Large files, kept once each under their sha256, and the table of which repo may use which.

An upload goes to a file of its own, is hashed, fsynced and only then renamed to its final name, so
a name that exists is a whole file.

What the table says a repo may use is there. Three things could break that, and one lock is between
them: whoever adds a row shares it from before they look for the file until the row is durable;
`sweep` has it alone from looking for rows of a file until that file is gone. A row comes with the
upload, before any commit can speak of the file, so what has no row is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from hublora.filesystem import sync_folder

from .database import Database
from .disk import abandoned, exclusive, make_folder, now, shared
from .errors import Malformed, NotThere
from .names import check_sha256
from .parts import CHUNK, Parts
from .pointers import Pointer

_PARTS_KEPT_SECONDS = 3 * 24 * 3600


class Incoming:
    """A file on its way in: written, hashed as it comes, kept or thrown away."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"incoming-{secrets.token_hex(8)}"
        self._file: BinaryIO = self.path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # until it is closed: see `abandoned`
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def digest(self) -> str:
        """The sha256 of what came so far."""
        return self._hash.hexdigest()

    def finish(self) -> str:
        """Make the content durable; return its sha256."""
        os.fsync(self._file.fileno())
        self._file.close()
        return self.digest

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class LargeFiles:
    """The content-addressed store and who may use what of it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._objects = folder / "lfs"
        self._uploads = folder / "uploads"
        self._lock = folder / "locks" / "large-files"
        make_folder(self._objects)
        # Made beforehand, so that a new file costs one fsync of its folder and not three.
        if not (self._objects / "ff").exists():
            for number in range(256):
                (self._objects / f"{number:02x}").mkdir(exist_ok=True)
        make_folder(self._uploads)
        self.parts = Parts(self._uploads)

    def path(self, oid: str) -> Path:
        """Return where the file of that sha256 is, or would be."""
        check_sha256(oid)
        return self._objects / oid[:2] / oid

    def has(self, repo_id: str, oid: str) -> Pointer | None:
        """Return the pointer of a large file that the repo may use, if it is there."""
        row = self._database.row(
            "SELECT size FROM large_files WHERE repo = ? AND oid = ?", repo_id, oid
        )
        return Pointer(oid, row["size"]) if row and self._is_whole(oid, row["size"]) else None

    def _is_whole(self, oid: str, size: int) -> bool:
        try:
            return self.path(oid).stat().st_size == size
        except FileNotFoundError:
            return False

    def is_sound(self, oid: str) -> bool:
        """Read a large file and compare; one that is damaged is set aside and must come again."""
        path = self.path(oid)
        try:
            with path.open("rb", buffering=0) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                read = os.fstat(file.fileno())
        except FileNotFoundError:
            return False
        if digest == oid:
            return True
        with exclusive(self._lock), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), read):  # it may just have been replaced
                path.rename(path.with_name(f"{oid}.damaged"))
        return False

    def all(self) -> list[str]:
        """Return the sha256 of every large file that some repo may use."""
        return [row["oid"] for row in self._database.rows("SELECT DISTINCT oid FROM large_files")]

    def holders(self, oid: str) -> list[str]:
        """Return the ids of the repos that may use a large file."""
        rows = self._database.rows("SELECT repo FROM large_files WHERE oid = ?", oid)
        return [row["repo"] for row in rows]

    def link(self, repo_id: str, pointers: Iterable[Pointer]) -> list[Pointer]:
        """Let a repo use large files; return those of them that are here."""
        with shared(self._lock):
            here = [each for each in pointers if self._is_whole(each.oid, each.size)]
            self._add_rows(repo_id, here)
        return here

    def _add_rows(self, repo_id: str, pointers: Iterable[Pointer]) -> None:
        moment = now()
        rows = [(repo_id, pointer.oid, pointer.size, moment) for pointer in pointers]
        if rows:
            with self._database.write(durable=False) as connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO large_files VALUES (?, ?, ?, ?)", rows
                )

    def settle(self, oids: Iterable[str]) -> None:
        """Make rows and names of large files durable; their contents are already.

        Before that, a power cut may undo an upload, which nobody has relied on: no ref moves to a
        commit that speaks of a large file before this was called.
        """
        for folder in {self.path(oid).parent for oid in oids}:
            sync_folder(folder)
        self._database.sync()

    def listed(self, repo_id: str) -> list[sqlite3.Row]:
        """Return all large files of a repo, newest first."""
        return self._database.rows(
            "SELECT * FROM large_files WHERE repo = ? ORDER BY created_at DESC, oid", repo_id
        )

    def unlink(self, repo_id: str, oids: Iterable[str]) -> None:
        """Take large files away from a repo; `sweep` frees what nobody uses any more."""
        with self._database.write() as connection:
            connection.executemany(
                "DELETE FROM large_files WHERE repo = ? AND oid = ?",
                [(repo_id, oid) for oid in oids],
            )

    # Arrivals

    def receive(self) -> Incoming:
        """Begin to take in a file."""
        return Incoming(self._uploads)

    def keep(self, repo_id: str, incoming: Incoming, expected: Pointer) -> None:
        """Keep an arrived file under its sha256 if it is what was announced.

        Raises:
            Malformed: Size or sha256 differ; nothing is kept.
        """
        try:
            _check(incoming.finish(), incoming.size, expected)
            self._place(repo_id, incoming.path, expected)
        except BaseException:
            incoming.discard()
            raise

    def adopt(self, repo_id: str, source: Path, expected: Pointer | None = None) -> Pointer:
        """Copy a file of this machine into the store for a repo; return its pointer.

        Raises:
            Malformed: It is not what is expected, if that is given; nothing is kept.
        """
        incoming = self.receive()
        try:
            with source.open("rb", buffering=0) as file:
                while chunk := file.read(CHUNK):
                    incoming.write(chunk)
        except BaseException:
            incoming.discard()
            raise
        pointer = Pointer(incoming.digest, incoming.size)
        self.keep(repo_id, incoming, expected or pointer)
        return pointer

    def assemble(self, repo_id: str, pointer: Pointer, parts: int) -> None:
        """Keep what the parts of an upload together make, if it is what was announced.

        Raises:
            NotThere: A part is missing.
            Malformed: Together they are something else.
        """
        try:
            data, digest = self.parts.assemble(repo_id, pointer, parts)
        except NotThere:
            if self.has(repo_id, pointer.oid):  # it was told before, and the answer got lost
                return
            raise
        try:
            _check(digest, data.stat().st_size, pointer)
            self._place(repo_id, data, pointer)
        except BaseException:
            data.unlink(missing_ok=True)
            raise

    def _place(self, repo_id: str, arrived: Path, pointer: Pointer) -> None:
        """Move a file that was checked to its name; what was there before may be damaged."""
        with shared(self._lock):
            os.replace(arrived, self.path(pointer.oid))
            self._add_rows(repo_id, [pointer])

    # Housekeeping

    def clean_uploads(self) -> None:
        """Throw away what a crash left half-written; parts stay some days, to be gone on with."""
        for path in self._uploads.glob("*/data"):
            if time.time() - path.stat().st_mtime > _PARTS_KEPT_SECONDS:
                shutil.rmtree(path.parent, ignore_errors=True)
        for path in self._uploads.glob("incoming-*"):
            if abandoned(path):
                path.unlink(missing_ok=True)
        for path in (*self._uploads.glob("fetch-*"), *self._uploads.glob("stage-*")):
            lock = path / "lock"
            if abandoned(lock) or not lock.exists():
                shutil.rmtree(path, ignore_errors=True)

    def sweep(self) -> tuple[int, int]:
        """Delete the large files that no repo uses; return how many and how many bytes."""
        used = {row["oid"] for row in self._database.rows("SELECT oid FROM large_files")}
        count = freed = 0
        for path in self._objects.glob("??/*"):
            if path.name in used:
                continue
            with exclusive(self._lock):
                if not self.holders(path.name):  # still, now that nobody can add a row
                    freed += path.stat().st_size
                    path.unlink()
                    count += 1
        return count, freed


def _check(digest: str, size: int, expected: Pointer) -> None:
    if digest != expected.oid or size != expected.size:
        raise Malformed(
            f"The upload is not what was announced: {size} bytes with sha256 {digest}"
            f" instead of {expected.size} bytes with {expected.oid}."
        )
