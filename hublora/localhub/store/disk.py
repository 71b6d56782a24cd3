"""Files and folders that are still there after the power went, locks, and moments as text.

Whole files are written by `hublora.filesystem.write_atomically`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from hublora.filesystem import sync_folder

log = logging.getLogger("hublora.hub")
_LAST_SECOND = 253_402_300_799


def now() -> str:
    """Return the present moment as the Hub writes it: `2026-11-21T08:00:00.000Z`."""
    return stamp(datetime.now(UTC).timestamp())


def stamp(seconds: float) -> str:
    """Return a moment given in Unix seconds as the Hub writes it, within the years 1970 to 9999."""
    moment = datetime.fromtimestamp(min(max(seconds, 0), _LAST_SECOND), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` with its parents, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def make_private(folder: Path) -> None:
    """Create `folder` if need be, and let nobody but its owner into it."""
    make_folder(folder)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        try:
            folder.chmod(0o700)
        except PermissionError:
            log.warning("%s can be read by others, and is not this user's to close.", folder)


def abandoned(path: Path) -> bool:
    """Tell whether whoever worked on a file, and held a lock on it, is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold `lock` against every other thread and process; the kernel frees it when we die."""
    with _locked(lock, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def shared(lock: Path) -> Iterator[None]:
    """Hold `lock` against whoever wants it exclusively, beside others who share it."""
    with _locked(lock, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def exclusive_if_free(lock: Path) -> Iterator[bool]:
    """Hold `lock` and yield True, or yield False at once when somebody has it."""
    try:
        with _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield True
    except BlockingIOError:
        yield False


@contextlib.contextmanager
def workplace(uploads: Path) -> Iterator[Path]:
    """Make a folder for the time of the block that no start takes for left over from a crash."""
    folder = Path(tempfile.mkdtemp(prefix="stage-", dir=uploads))
    try:
        with exclusive(folder / "lock"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(lock: Path, way: int) -> Iterator[None]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, way)
        yield
    finally:
        os.close(descriptor)
