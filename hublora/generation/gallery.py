"""The images of a run folder or repo, and how each was generated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hublora.generation.metadata import read_image

# Mean difference in 8-bit levels up to which two images count as the same: a different order of
# arithmetic moves single levels in float32, and a few in half precision.
_TOLERANCE = {"float32": 2.0, "bfloat16": 12.0, "float16": 12.0}


def image_tolerance(dtype: str) -> float:
    """Return the largest mean difference in 8-bit levels of two equal images made in `dtype`."""
    return _TOLERANCE[dtype]


def gallery_images(folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Return (path, metadata) of the images in `folder` that record how they were generated."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for path in sorted(folder.glob("images/*.png")):
        try:
            facts = read_image(path)
        except (OSError, ValueError, SyntaxError):  # Pillow's, of a damaged image
            continue
        if isinstance(facts.get("sampling"), dict) and facts.get("adapters"):
            found.append((path, facts))
    return found
