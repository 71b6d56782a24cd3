"""Finds what hublora itself wrote into a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hublora.filesystem import OWN_FOLDER, RUN_MARKERS

# How the metadata of a generated PNG begins; see `hublora.generation.metadata`.
_METADATA = b"iTXthublora\0"
_HEAD = 4096  # bytes; Pillow writes text right after the size and the colour profile


def find_results(folder: Path) -> set[Path]:
    """Return the folders below `folder` that hold results of trainings or compositions."""
    found = (path for marker in RUN_MARKERS for path in folder.rglob(marker))
    depth = OWN_FOLDER.count("/") + 1
    return {path.parents[depth] for path in found if path.is_file()} - {folder}


def results_note(folder: Path) -> list[str]:
    """Return the sentence that names the folders of results that are not read, if there are any."""
    names = sorted(path.relative_to(folder).as_posix() for path in find_results(folder))
    if not names:
        return []
    return [f"Results of hublora are not read as images: {_listed(names)}."]


def generated_note(names: Sequence[tuple[str, Path]]) -> list[str]:
    """Return the sentence that names the images that hublora generated, if there are any.

    Args:
        names: Names and paths of the images that are used.
    """
    found = [name for name, path in names if path.suffix.lower() == ".png" and _is_own(path)]
    if not found:
        return []
    count = f"{len(found)} of {len(names)} images"
    return [
        f"hublora generated {count}, and they are trained on like the others: {_listed(found)}."
    ]


def _is_own(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _METADATA in file.read(_HEAD)
    except OSError:  # told when the images are checked
        return False


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
