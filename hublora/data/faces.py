"""Where faces are in images, so that they are not cut off.

OpenCV's Haar cascade finds them (Viola and Jones 2001, https://doi.org/10.1109/CVPR.2001.990517).
It comes with the package, so that nothing is downloaded, and sees faces that look at the camera.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hublora.data.examples import Example
from hublora.data.image_check import ordered_map
from hublora.errors import DataError
from hublora.filesystem import write_atomically

FORMAT = 1
_CASCADE = "haarcascade_frontalface_default.xml"
_WORK_SIDE = 512  # images are looked at in this size: faces are found, and quickly
_SMALLEST = 0.06  # of the shorter side
_NEIGHBOURS = 5  # overlapping finds that make a face; fewer take walls for faces

Focus = tuple[float, float]


def can_find_faces() -> bool:
    """Tell whether the package that finds faces is installed."""
    try:
        return hasattr(_opencv(), "CascadeClassifier")
    except ImportError:
        return False


def focus_on_faces(
    examples: Sequence[Example], fingerprint: str, cache_root: Path, workers: int = 0
) -> list[Example]:
    """Return the examples with the middle of the largest face as their focus, where one is found.

    Args:
        examples: Images.
        fingerprint: Identity of `examples`; what is found is kept in the cache under it.
        cache_root: Of the cache.
        workers: Threads to look with.
    """
    path = cache_root / "faces" / f"{fingerprint}.json"
    found = _load(path, len(examples))
    if found is None:
        found = list(ordered_map(find_face, examples, workers))
        write_atomically(path, json.dumps({"format": FORMAT, "faces": found}))
    return [
        replace(one, focus=(place[0], place[1]) if place else None)
        for one, place in zip(examples, found, strict=True)
    ]


def find_face(example: Example) -> Focus | None:
    """Return the middle of the largest face, (x, y) in [0, 1] of width and height; None without."""
    import numpy as np

    from hublora.data.images import to_rgb

    try:
        image = to_rgb(example.open()).convert("L")
    except DataError:  # it was readable a moment ago: the encoder says what is wrong
        return None
    scale = min(1.0, _WORK_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    grey = _opencv().equalizeHist(np.asarray(image.resize(size)))
    least = max(1, round(_SMALLEST * min(size)))
    boxes = _cascade().detectMultiScale(
        grey, scaleFactor=1.1, minNeighbors=_NEIGHBOURS, minSize=(least, least)
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


def _load(path: Path, count: int) -> list[Any] | None:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        faces = saved["faces"] if saved["format"] == FORMAT else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return faces if isinstance(faces, list) and len(faces) == count else None
