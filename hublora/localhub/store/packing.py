"""Keeping the number of packs small: every commit writes one, and reading looks through them all.

Small packs are joined into one once there are many. The old ones go only after some minutes: a
reader that began before may still need them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pygit2

from hublora.filesystem import sync_folder, write_atomically

from .disk import sync_file, workplace

JOIN_FROM = 40
_SMALL_BYTES = 16 << 20
_GRACE_SECONDS = 600
SUPERSEDED = "superseded"


def join_packs(raw: pygit2.Repository, folder: Path, least: int = JOIN_FROM) -> None:
    """Join the small packs of a repository if there are many; the caller holds its lock."""
    packs = folder / "objects" / "pack"
    if not _old_ones_are_gone(packs):
        return
    indexes = [path for path in packs.glob("pack-*.idx") if _is_small(path)]
    if len(indexes) < least:
        return
    builder = pygit2.PackBuilder(raw)
    for index in indexes:
        for oid in object_ids(index):
            builder.add(pygit2.Oid(hex=oid))
    with workplace(folder.parents[1] / "uploads") as place:
        made = place / "pack"
        made.mkdir()
        builder.write(str(made))
        new = install(made, packs)
    gone = [path.stem for path in indexes if path.stem not in new]
    write_atomically(packs / SUPERSEDED, "\n".join(gone).encode())


def install(made: Path, packs: Path) -> set[str]:
    """Move fresh packs to where git looks for them, durably; return their names."""
    # git looks for the index first, so the pack must be there before it.
    files = sorted(made.iterdir(), key=lambda path: path.suffix == ".idx")
    for file in files:
        sync_file(file)
        file.replace(packs / file.name)
    sync_folder(packs)
    return {file.stem for file in files}


def object_ids(index: Path) -> Iterator[str]:
    """Yield the ids in a pack's index (https://git-scm.com/docs/gitformat-pack, version 2)."""
    content = index.read_bytes()
    count = int.from_bytes(content[8 + 255 * 4 : 8 + 256 * 4])
    start = 8 + 256 * 4
    for place in range(start, start + 20 * count, 20):
        yield content[place : place + 20].hex()


def sweep(folder: Path) -> None:
    """Remove what a crash left among a repository's packs; the caller holds its lock."""
    packs = folder / "objects" / "pack"
    for path in (*packs.glob("*.pack"), *packs.glob(f".{SUPERSEDED}.*")):
        # A pack that came without its index was never looked at.
        if path.suffix != ".pack" or not path.with_suffix(".idx").exists():
            path.unlink(missing_ok=True)


def _is_small(index: Path) -> bool:
    pack = index.with_suffix(".pack")
    return pack.exists() and pack.stat().st_size < _SMALL_BYTES


def _old_ones_are_gone(packs: Path) -> bool:
    """Delete what an earlier join made superfluous, unless that was a moment ago."""
    listed = packs / SUPERSEDED
    if not listed.exists():
        return True
    if time.time() - listed.stat().st_mtime < _GRACE_SECONDS:
        return False
    for name in listed.read_text().split():
        # The index first: a pack without one is not looked at.
        (packs / f"{name}.idx").unlink(missing_ok=True)
        (packs / f"{name}.pack").unlink(missing_ok=True)
    listed.unlink()
    return True
