"""Finds faces, so that crops can be centred on them.

OpenCV's Haar cascade finds them (Viola and Jones 2001, https://doi.org/10.1109/CVPR.2001.990517).
It comes with the package, so nothing is downloaded, and finds faces that look at the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hublora.data.checked_json import read_checked, write_checked
from hublora.data.examples import Example
from hublora.data.image_check import ordered_map
from hublora.errors import DataError

FORMAT = 2
_CASCADE = "haarcascade_frontalface_default.xml"
_WORK_SIDE = 512  # pixels of the longer side: enough to find faces, and quick
_MIN_FACE = 0.06  # of the shorter side
_NEIGHBOURS = 5  # overlapping detections that make a face; with fewer, walls become faces

Point = tuple[float, float]


def can_find_faces() -> bool:
    """Return whether OpenCV, which finds faces, is installed."""
    try:
        return hasattr(_opencv(), "CascadeClassifier")
    except ImportError:
        return False


def center_on_faces(
    examples: Sequence[Example], fingerprint: str, cache_root: Path, workers: int = 0
) -> list[Example]:
    """Return the examples with the middle of their largest face, if any, as `crop_center`.

    Args:
        examples: Checked images.
        fingerprint: Hash of the images, under which the result is cached.
        cache_root: Root folder of the cache.
        workers: Threads that decode and search; 0: none besides this one.
    """
    path = cache_root / "faces" / f"{fingerprint}.json"
    saved = read_checked(path)
    made_with = {"format": FORMAT, "images": len(examples)}
    if isinstance(saved, dict) and saved["made with"] == made_with:
        found = saved["faces"]
    else:
        found = list(ordered_map(find_face, examples, workers))
        write_checked(path, {"made with": made_with, "faces": found})
    return [
        replace(one, crop_center=(place[0], place[1]) if place else None)
        for one, place in zip(examples, found, strict=True)
    ]


def find_face(example: Example) -> Point | None:
    """Return the middle of the largest face, (x, y) in [0, 1] of width and height; None without."""
    import numpy as np

    from hublora.data.images import to_rgb

    try:
        image = to_rgb(example.open()).convert("L")
    except DataError:  # changed since it was checked: the encoder raises
        return None
    scale = min(1.0, _WORK_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    grey = _opencv().equalizeHist(np.asarray(image.resize(size)))
    smallest = max(1, round(_MIN_FACE * min(size)))
    boxes = _cascade().detectMultiScale(
        grey, scaleFactor=1.1, minNeighbors=_NEIGHBOURS, minSize=(smallest, smallest)
    )
    if not len(boxes):
        return None
    left, top, width, height = max(boxes, key=lambda box: int(box[2]) * int(box[3]))
    return float((left + width / 2) / size[0]), float((top + height / 2) / size[1])


def _cascade() -> Any:
    opencv = _opencv()
    return opencv.CascadeClassifier(str(Path(opencv.data.haarcascades) / _CASCADE))


def _opencv() -> Any:
    return import_module("cv2")
