"""Lists and removes cache entries of this machine: latents, prompt embeddings, downloads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.filesystem import cache_root

# Folder of the cache -> what its entries are. Nothing outside these folders is listed or removed.
KINDS = {
    "latents": "latents of images",
    "masks": "loss masks",
    "inpainting": "masks and masked-image latents for inpainting",
    "prompts": "prompt embeddings of captions",
    "class": "class images for prior preservation",
    "streams": "images of streamed datasets",
    "archives": "unpacked .zip files",
    "image_checks": "results of checking images",
    "faces": "positions of faces",
    "single_files": "pipelines made of single files",
    "file_ids": "lists of the contents of repos with bases",
    "base_hashes": "hashes of the files of local bases",
    "listings": "lists of the files of repos with several adapters",
    "urls": "adapters downloaded from https URLs",
}


@dataclass(frozen=True)
class CacheEntry:
    """One entry of the cache.

    Attributes:
        kind: A key of `KINDS`.
        key: Name of the file or folder, unique within its kind.
        path: Absolute path.
        size: Bytes on disk.
        used: Unix time of its newest file, seconds.
        about: JSON values of the entry's index.json; empty without one.
    """

    kind: str
    key: str
    path: Path
    size: int
    used: float
    about: dict[str, Any]


def list_cache(root: Path | str | None = None) -> list[CacheEntry]:
    """Return the entries of the cache, the largest first.

    Args:
        root: Folder of the cache; $HUBLORA_CACHE or ~/.cache/hublora by default.
    """
    folder = cache_root() if root is None else Path(root).expanduser()
    entries = [
        _entry(kind, path)
        for kind in KINDS
        for path in sorted((folder / kind).glob("*"))
        if not path.is_symlink() and path.suffix != ".lock"
    ]
    return sorted(entries, key=lambda entry: -entry.size)


def remove_cached(entries: Sequence[CacheEntry]) -> int:
    """Remove entries that `list_cache` returned and return the freed bytes.

    An entry is renamed before it is removed, so that a killed process leaves no half of it under
    its name. A training that uses an entry reads its open files on and encodes again afterwards.
    """
    for entry in entries:
        doomed = entry.path.with_name(f".removed-{entry.path.name}")
        if doomed.exists():
            _remove(doomed)
        entry.path.rename(doomed)
        _remove(doomed)
    return sum(entry.size for entry in entries)


def _entry(kind: str, path: Path) -> CacheEntry:
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
    stats = [one.stat() for one in files]
    return CacheEntry(
        kind,
        path.name,
        path.absolute(),
        sum(one.st_size for one in stats),
        max((one.st_mtime for one in stats), default=path.stat().st_mtime),
        _about(path / "index.json"),
    )


def _about(index: Path) -> dict[str, Any]:
    try:
        about = json.loads(index.read_bytes())
    except (OSError, ValueError):
        return {}
    plain = about.items() if isinstance(about, dict) else ()
    return {key: value for key, value in plain if isinstance(value, str | int | float)}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
