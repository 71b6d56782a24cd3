"""A .zip of captioned images, by path or https URL, unpacked once into the cache.

Archives are untrusted: only images, captions and metadata are written, inside the archive's own
folder, and no more bytes than the limits allow, whatever sizes the archive states.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from hublora.data.folder import SIDECAR_ENDING
from hublora.data.folder_files import ENDINGS
from hublora.data.metadata import METADATA
from hublora.errors import DataError
from hublora.filesystem import sha256_of, sync_folder
from hublora.hub.urls import download_url

MAX_FILES = 200_000
MAX_BYTES = 64 << 30  # unpacked
MAX_DOWNLOAD = 16 << 30  # bytes
MAX_RATIO = 200  # of compression: images hardly compress, and captions less than this
_FREE_OF_RATIO = 16 << 20  # bytes up to which any ratio is harmless
_SUFFIXES = frozenset((*ENDINGS, SIDECAR_ENDING))


def fetch_archive(archive: str, cache_root: Path) -> tuple[Path, str]:
    """Return the unpacked folder of an archive, and the archive's name without its suffix.

    Args:
        archive: Path or https URL of a .zip file.
        cache_root: Root folder of the cache, in which the archive is unpacked.

    Raises:
        DataError: The URL is not https, or `unpack` refuses the archive.
        HubError: The archive cannot be downloaded.
    """
    if "://" not in archive:
        path = Path(archive).expanduser()
        return unpack(path, cache_root), path.stem
    if not archive.startswith("https://"):
        raise DataError(
            f"data.archive must be a path or an https URL, got {archive.partition('?')[0]}."
        )
    name = PurePosixPath(urlsplit(archive).path).stem or "archive"
    return unpack(download_url(archive, "archive.zip", MAX_DOWNLOAD), cache_root), name


def unpack(archive: Path, cache_root: Path) -> Path:
    """Return the folder with the archive's images and captions, unpacking it the first time.

    Args:
        archive: Path of a .zip file.
        cache_root: Root folder of the cache; the folder inside is named by the archive's hash.

    Raises:
        DataError: The file is no zip, damaged or encrypted; an entry lies outside its folder; it
            is larger than the limits; or the disk is full.
    """
    if not archive.is_file():
        raise DataError(f"The archive {archive} does not exist.")
    folder = cache_root / "archives" / sha256_of(archive)[:32]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpacking-"))
        try:
            _extract(archive, partial)
            _move(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _descend(folder)


def _extract(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = list(_entries(opened, archive.name))
            left = MAX_BYTES
            for entry, name in entries:
                left -= _write(opened, entry, target / name, left, archive.name)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive.name} is not a whole .zip file: {error}.") from error
    except RuntimeError as error:  # what zipfile raises for an encrypted entry
        raise DataError(f"{archive.name} cannot be unpacked: {error}.") from error
    except OSError as error:
        raise DataError(f"{archive.name} cannot be unpacked: {error.strerror}.") from error


def _entries(opened: zipfile.ZipFile, label: str) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Yield the entries to write, each with its checked relative name."""
    entries = opened.infolist()
    if len(entries) > MAX_FILES:
        raise DataError(f"{label} has {len(entries):,} files; at most {MAX_FILES:,} are allowed.")
    stated = sum(entry.file_size for entry in entries)
    if stated > MAX_BYTES:
        raise DataError(
            f"{label} has {stated >> 30} GiB unpacked; at most {MAX_BYTES >> 30} GiB are allowed.",
            "Unpack it yourself and use: --folder PATH",
        )
    for entry in entries:
        name = _safe_name(entry, label)
        path = PurePosixPath(name)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        known = path.suffix.lower() in _SUFFIXES or path.name in METADATA
        if known and not hidden and not entry.is_dir():
            yield entry, name


def _safe_name(entry: zipfile.ZipInfo, label: str) -> str:
    """Return the entry's name with forward slashes.

    Raises:
        DataError: The name is absolute, has "..", names a drive, or belongs to a link.
    """
    name = entry.filename.replace("\\", "/")
    parts = name.split("/")
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    if name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name or is_link:
        raise DataError(
            f"{label} has an entry outside of its folder: {entry.filename!r}.",
            "Make a new archive of the images alone.",
        )
    return name


def _write(
    opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, limit: int, label: str
) -> int:
    """Write one entry and return its size, counted here: an archive may state another one."""
    allowed = min(limit, max(_FREE_OF_RATIO, entry.compress_size * MAX_RATIO))
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(entry) as packed, open(path, "wb") as file:
        while block := packed.read(1 << 20):
            written += len(block)
            if written > allowed:
                raise DataError(
                    f"{label} is a zip bomb: {entry.filename!r} unpacks to over {allowed:,} bytes."
                )
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return written


def _move(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was quicker with the same content
            raise
    sync_folder(folder.parent)


def _descend(folder: Path) -> Path:
    """Return the innermost folder that is the only content of the one around it."""
    inside = list(folder.iterdir())
    return _descend(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder
