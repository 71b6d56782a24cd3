"""Uploads in parts: each part goes straight to its place in the file, hashed as it comes.

The file is moved into the store without being read again, but only when that is safe: every part
came once, in order, alone. Whatever else happened (parts again, together, after a restart), the
whole is hashed before it is believed: a sha256 that was computed from other bytes than those on
disk would poison every repo that shares the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from .disk import make_folder
from .errors import Conflict, NotThere
from .names import check_sha256
from .pointers import Pointer

CHUNK = 1 << 20


@dataclass
class _Upload:
    """What is known of one upload as long as this process lives."""

    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    following: int = 1
    writing: int = 0
    orderly: bool = True


class Part:
    """One part on its way in."""

    def __init__(self, parts: Parts, key: str, number: int, offset: int) -> None:
        self.size = 0
        self._parts, self._key, self._number, self._offset = parts, key, number, offset
        self._hash = parts.begin(key, number)
        path = parts.folder / key / "data"
        try:
            make_folder(path.parent)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        except BaseException:
            parts.end(key, number, None)
            raise

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._file, view, self._offset + self.size)
            self.size += written
            view = view[written:]
        self._hash.update(chunk)

    def finish(self) -> str:
        """Note that the part is whole; return what serves as its ETag."""
        os.close(self._file)
        (self._parts.folder / self._key / f"{self._number}.done").touch()
        self._parts.end(self._key, self._number, self._hash)
        return f"{self._number}-{self.size}"

    def discard(self) -> None:
        """Give the part up; it will come again."""
        os.close(self._file)
        self._parts.end(self._key, self._number, None)


class Parts:
    """All uploads in parts that are under way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}

    def receive(self, repo_id: str, pointer: Pointer, number: int, part_bytes: int) -> Part:
        """Begin to take in part `number` (from 1)."""
        key = _key(repo_id, pointer)
        return Part(self, key, number, part_bytes * (number - 1))

    def begin(self, key: str, number: int) -> hashlib._Hash:
        """Note that a part begins; return the hash of all before it, to go on with."""
        with self._lock:
            # After a restart the hash of what came before is lost with the process.
            orderly = number == 1 and not (self.folder / key).exists()
            upload = self._uploads.setdefault(key, _Upload(orderly=orderly))
            if upload.writing or number != upload.following:
                upload.orderly = False
            upload.writing += 1
            return upload.hash.copy()

    def end(self, key: str, number: int, digest: hashlib._Hash | None) -> None:
        """Note that a part is whole (with the hash up to here) or given up."""
        with self._lock:
            upload = self._uploads[key]
            upload.writing -= 1
            if digest is not None and upload.orderly:
                upload.hash, upload.following = digest, number + 1
            elif digest is not None:
                upload.following = 0

    def assemble(self, repo_id: str, pointer: Pointer, parts: int) -> tuple[Path, str]:
        """Return the file that all parts together make, durable, and its sha256.

        Raises:
            NotThere: A part is missing.
            Conflict: A part is still being written.
        """
        key = _key(repo_id, pointer)
        folder = self.folder / key
        for number in range(1, parts + 1):
            if not (folder / f"{number}.done").is_file():
                raise NotThere(f"Part {number} of the upload is missing.")
        with self._lock:
            upload = self._uploads.get(key, _Upload(orderly=False))
            if upload.writing:
                raise Conflict("A part of this upload is still on its way.")
            self._uploads.pop(key, None)
            # Under its new name no writer finds it any more.
            data = folder.with_name(f"incoming-{key}")
            os.replace(folder / "data", data)
        shutil.rmtree(folder, ignore_errors=True)
        whole = upload.orderly and upload.following == parts + 1
        digest = upload.hash.hexdigest() if whole else _hash_file(data)
        descriptor = os.open(data, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        return data, digest


def _key(repo_id: str, pointer: Pointer) -> str:
    return f"{repo_id}-{check_sha256(pointer.oid)}"


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
