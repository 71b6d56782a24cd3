"""Atomic writes, folder locks, temporary folders, hashes and the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Files in a folder that a training or composition wrote, which say that hublora did. Every upload
# of huggingface_hub leaves `.cache/huggingface` out, and refuses other paths below `.cache`.
OWN_FOLDER = ".cache/huggingface/hublora"
LOCK = f"{OWN_FOLDER}/lock"
RUN_RECORD = f"{OWN_FOLDER}/results.json"
RUN_CARD = f"{OWN_FOLDER}/card.json"
RUN_SETTINGS = f"{OWN_FOLDER}/settings.json"
RUN_IMAGES = f"{OWN_FOLDER}/images.json"
RUN_MARKERS = (LOCK, RUN_RECORD, RUN_CARD)

_TEMPORARY = "hublora-"  # how the names of temporary folders begin
_IN_USE = "in-use.lock"  # file in one, locked by the process that uses it


def cache_root() -> Path:
    """Return the folder of caches that can be rebuilt: $HUBLORA_CACHE or ~/.cache/hublora."""
    if os.environ.get("HUBLORA_CACHE"):
        return Path(os.environ["HUBLORA_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "hublora"


def write_atomically(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write to a temporary name, fsync, rename, fsync the folder: no reader sees part of it."""
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
    """Lock `folder` until the block or the process ends; yield whether that succeeded.

    Where the system or the file system has no locks, it always succeeds.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    lock = folder / LOCK
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
    """Return whether a process has locked `folder`; writes nothing."""
    lock = folder / LOCK
    try:
        import fcntl

        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Yield a new temporary folder, removed at the end; if this process is killed before, the next
    one that runs hublora removes it (`remove_abandoned`).

    Args:
        kind: Word in the folder's name that says what it is for.
    """
    remove_abandoned()
    with (
        tempfile.TemporaryDirectory(prefix=f"{_TEMPORARY}{kind}-") as made,
        _in_use(Path(made)),
    ):
        folder = Path(made) / "files"
        folder.mkdir()
        yield folder


def remove_abandoned() -> None:
    """Remove the temporary folders of hublora that no process uses any more, of this user alone."""
    try:
        import fcntl
    except ImportError:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _IN_USE).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, without the file that makes it one of these, or gone meanwhile
            continue


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Mark a temporary folder as in use until the block or the process ends."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    new = folder / f"{_IN_USE}.new"
    with new.open("w") as file:
        # Locked before its name says what the folder is; one that cannot be locked stays unnamed.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            new.rename(folder / _IN_USE)
        yield


def nearest_folder(folder: Path) -> Path:
    """Return `folder`, or the nearest parent that exists."""
    folder = folder.absolute()
    return folder if folder.is_dir() else nearest_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """fsync `folder`, so that renames in it are durable; Windows does that by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path, offset: int = 0) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes from an offset on."""
    with open(path, "rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()
