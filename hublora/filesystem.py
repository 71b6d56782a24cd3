"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """Return where hublora keeps what it can make again: $HUBLORA_CACHE or ~/.cache/hublora."""
    if os.environ.get("HUBLORA_CACHE"):
        return Path(os.environ["HUBLORA_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "hublora"


def write_atomically(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write to a temporary name, fsync, rename, fsync the folder; nobody ever reads a part."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Tell whether this process has `folder` for itself; ends with the block, or the process.

    Where the system has no file locks every claim is granted.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    lock = folder / ".cache" / "hublora" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a network folder without locks
            pass
        yield True


def is_locked(folder: Path) -> bool:
    """Tell whether a process has `folder` for itself; writes nothing."""
    lock = folder / ".cache" / "hublora" / "lock"
    try:
        import fcntl

        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


def nearest_folder(folder: Path) -> Path:
    """Return `folder`, or the nearest one above that is there."""
    folder = folder.absolute()
    return folder if folder.is_dir() else nearest_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable; Windows cannot open one, and does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
