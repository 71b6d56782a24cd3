"""Finds the files of a folder of images: its split, its metadata, its images and its links.

photos/train/ photos/validation/     splits: `--split` names one, train/ is the default
photos/train/ photos/car/            no splits: the whole folder is used
photos/metadata.jsonl photos/train/  the metadata names the images of every split
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hublora.data.examples import Skipped
from hublora.data.metadata import METADATA
from hublora.data.own_output import find_results
from hublora.errors import DataError

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".heic", ".heif"),
    *(".gif", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tga", ".qoi", ".ico"),
)
TRAIN = "train"
# Names of subfolders beside train/ that make it a split instead of one subject among others.
SPLITS = (TRAIN, "test", "testing", "validation", "valid", "val", "dev", "eval", "holdout")


@dataclass(frozen=True)
class FolderLayout:
    """The part of a folder that is trained on.

    Attributes:
        root: Folder that names are relative to and metadata is read from.
        part: Folder of the images: `root`, or the subfolder of a split.
        notes: Sentences for the log about what is left out.
    """

    root: Path
    part: Path
    notes: tuple[str, ...] = ()


def find_layout(folder: Path, split: str) -> FolderLayout:
    """Return which part of a folder is the split: a subfolder of that name, or the whole folder.

    Beside other subfolders than splits, or images, train/ is a subject like them.

    Raises:
        DataError: `folder` does not exist or is a file, or has no subfolder for a named split.
    """
    _check_folder(folder)
    inside = sorted(
        one for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")
    )
    names = [one.name for one in inside]
    if split not in names:
        if split == TRAIN:
            return FolderLayout(folder, folder)
        raise DataError(
            f"{folder.name} has no subfolder {split!r} for --split; it has "
            f"{', '.join(map(repr, names)) or 'none'}.",
            "Name a subfolder, or leave out --split; --max-train-samples uses a part of it.",
        )
    part, results = folder / split, find_results(folder)
    others = {
        f"{one.name}/": found
        for one in inside
        if one not in {part, *results} and (found := len(find_images(one)))
    }
    loose = sum(_is_image(one) for one in folder.iterdir())
    if split == TRAIN and (loose or any(name.rstrip("/") not in SPLITS for name in others)):
        beside = [*others, *(["images"] if loose else [])]
        return FolderLayout(
            folder,
            folder,
            (
                f"All of {folder.name} is used, and {split}/ is no split, since beside it are "
                f"{', '.join(beside)}; to use it alone, name it as the folder",
            ),
        )
    counts = [f"{count} in {name}" for name, count in others.items()]
    counts += [f"{loose} beside it"] if loose else []
    notes = (f"Images are those of {split}/; left out: {', '.join(counts)}",) if counts else ()
    has_metadata = any((folder / name).is_file() for name in METADATA)
    return FolderLayout(folder if has_metadata else part, part, notes)


def _check_folder(folder: Path) -> None:
    """Check that a folder exists.

    Raises:
        DataError: It does not exist, or is a file.
    """
    if folder.is_dir():
        return
    if folder.suffix.lower() == ".zip" and folder.is_file():
        raise DataError(f"{folder} is a .zip, not a folder.", f"Use: --archive {folder}")
    if folder.exists():
        raise DataError(f"{folder} is a file, not a folder of images.")
    hint = None
    if re.fullmatch(r"[\w.-]+/[\w.-]+", folder.as_posix()):
        hint = f"For a dataset on the Hub, use: --dataset {folder.as_posix()}"
    raise DataError(f"The folder {folder} does not exist.", hint)


def find_tables(layout: FolderLayout) -> list[Path]:
    """Return the metadata files: all in the part, and those of the root itself."""
    above = [layout.root / name for name in METADATA] if layout.root != layout.part else []
    results = find_results(layout.part)
    return [one for one in above if one.is_file()] + [
        path
        for name in METADATA
        for path in sorted(layout.part.rglob(name))
        if not _is_hidden(path.relative_to(layout.part)) and results.isdisjoint(path.parents)
    ]


def find_images(folder: Path) -> list[Path]:
    """Return the files with an image suffix in `folder` and below, sorted by name, except those in
    folders of results that hublora wrote."""
    results = find_results(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if _is_image(path)
        and not _is_hidden(path.relative_to(folder))
        and results.isdisjoint(path.parents)
    )


def find_linked_folders(layout: FolderLayout) -> list[Skipped]:
    """Return the links to folders, whose images are left out."""
    reason = "is a link to a folder; to use its images, copy them"
    return [
        Skipped(f"{path.relative_to(layout.root).as_posix()}/", reason)
        for path in sorted(layout.part.rglob("*"))
        if path.is_symlink() and path.is_dir() and not _is_hidden(path.relative_to(layout.part))
    ]


def check_link(folder: Path, path: Path) -> None:
    """Refuse a link that leads out of the folder, since it may expose any file of this computer.

    Links of a snapshot in the Hub's cache lead to the blobs of the same repo and are followed.

    Raises:
        DataError: `path` is such a link, or a link to itself.
    """
    name = path.relative_to(folder)
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name} is a link to itself.", "Remove it.") from error
    root = folder.resolve()
    if not target.is_relative_to(root) and not _is_blob(root, target):
        raise DataError(
            f"{name} is a link that leads out of the folder.",
            "Copy the file itself into the folder.",
        )


def _is_blob(root: Path, target: Path) -> bool:
    """Return whether `target` is a blob of the cached repo that `root` is a snapshot of."""
    for parent in (root, *root.parents):
        repo = parent.parent.parent
        if parent.parent.name == "snapshots" and "--" in repo.name:
            return target.parent == repo / "blobs"
    return False


def digest_files(
    files: Sequence[tuple[str, Callable[[], IO[bytes]]]], workers: int
) -> tuple[str, list[str]]:
    """Return the hash of the names and contents of files, "" without files, and the hash of each
    file's content."""
    from hublora.data.image_check import ordered_map

    whole = hashlib.sha256()
    each = list(ordered_map(_hash, [file for _, file in files], workers))
    for (name, _), digest in zip(files, each, strict=True):
        whole.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
    return whole.hexdigest() if files else "", each


def _hash(opens: Callable[[], IO[bytes]]) -> str:
    digest = hashlib.sha256()
    try:
        with opens() as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:  # `scan_images` reports it
        return str(error.errno)
    return digest.hexdigest()


def _is_image(path: Path) -> bool:
    known = path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    return known and (path.is_file() or path.is_symlink())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
