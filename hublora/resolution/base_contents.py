"""What is in the folder of a local base: a hash that tells it from any other of its name."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection
from pathlib import Path

from hublora.filesystem import cache_root, sha256_of, write_atomically

_LOADED = (".json", ".txt", ".model", ".safetensors")  # what a pipeline is loaded from
_SMALL = 1 << 20  # bytes that are hashed each time, which takes no longer than to look them up
# Two writes within a tick of the file system's clock leave the same times; FAT's is the slowest.
_SETTLED = 2.0  # seconds


def components_of(folder: Path) -> list[str]:
    """Return the names of the subfolders that a pipeline's components are loaded from, sorted."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "safety_checker"))
    )


def hash_components(folder: Path, components: Collection[str]) -> str:
    """Return a hash of `model_index.json` and all files of some components, "sha256:…".

    A large file is read once: its hash is kept for as long as path, size, inode and times stay.
    """
    paths = [path for name in sorted(components) for path in sorted((folder / name).glob("*"))]
    whole = hashlib.sha256()
    for path in (folder / "model_index.json", *paths):
        if path.name.endswith(_LOADED) and path.is_file():
            digest = remembered_sha256(path)
            whole.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def remembered_sha256(path: Path, now: float | None = None) -> str:
    """Return the hexadecimal SHA-256 of a file, from the cache unless the file may have changed.

    Args:
        path: An existing file.
        now: Unix time in seconds; the current one by default.
    """
    before = path.stat()
    if before.st_size < _SMALL:
        return sha256_of(path)
    place = str(path.resolve())
    named = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:32]
    kept = cache_root() / "base_hashes" / f"{named}.json"
    try:
        known = json.loads(kept.read_bytes())
        if known["file"] == [place, *_identity(before)]:
            return str(known["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    digest = sha256_of(path)
    newest = max(before.st_mtime, before.st_ctime)
    is_settled = (time.time() if now is None else now) - newest > _SETTLED
    if is_settled and _identity(path.stat()) == _identity(before):
        try:
            write_atomically(
                kept, json.dumps({"file": [place, *_identity(before)], "sha256": digest})
            )
        except OSError:
            pass  # without it, the next training reads the file again
    return digest


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (
        *(found.st_size, found.st_dev, found.st_ino),
        *(found.st_mtime_ns, found.st_ctime_ns),
    )
