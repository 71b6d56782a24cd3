"""Measures what a 64×64 image of the demo's kind shows: colours, shape, drawing style.

Every measure looks only at pixels, shape (64, 64, 3), uint8. `tiny_base.py --check` shows how far
each can be trusted, on drawn scenes whose content is known.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

from tools.tiny_base.scenes import (
    COLOURS,
    OUTLINE_WIDTH,
    PAPER,
    RULE,
    SIZE,
    STRIPE_SPACING,
    SUPERSAMPLING,
    Scene,
    outline_points,
)
from tools.tiny_base.shapes import SHAPES

INK_LEVEL = 90
"""A pixel counts as ink if all its channels are below this."""

CLEAR_DISTANCE = 40.0
"""RGB distance up to which a pixel shows a palette colour clearly."""

TILTS = (-0.14, -0.07, 0.0, 0.07, 0.14)
"""Tilts of the shape templates in radians: the range that scenes are drawn with."""

FOREGROUND_DISTANCE = 60.0
"""RGB distance from the background from which a pixel belongs to the subject."""


def background_name(pixels: np.ndarray) -> str:
    """Return the colour name (or "paper") nearest to the median of the outermost two pixels."""
    return _nearest(_frame_median(pixels), {**COLOURS, "paper": PAPER})


def subject_colour_name(pixels: np.ndarray) -> str:
    """Return the colour that most of the subject's pixels show.

    Pixels near no colour (ink, blends, light stripes) have no vote if others have one, and white
    (eyes) wins only with two thirds of the votes.
    """
    inside = subject_mask(pixels) & ~_is_ink(pixels)
    if not inside.any():
        return ""
    palette = np.array(list(COLOURS.values()), dtype=float)
    distance = np.linalg.norm(pixels[inside][:, None] - palette, axis=-1)
    clear = distance.min(axis=1) < CLEAR_DISTANCE
    voters = distance[clear] if clear.sum() >= 10 else distance
    votes = dict(zip(COLOURS, np.bincount(voters.argmin(1), minlength=len(palette)), strict=True))
    if votes["white"] < 2 / 3 * len(voters):
        votes["white"] = 0
    return max(votes, key=lambda name: votes[name])


def shape_name(pixels: np.ndarray) -> str:
    """Return the subject whose template overlaps the mask of the image best.

    Mask and templates are cropped to their bounding box and scaled to 32×32 (keeping the aspect),
    so place and size do not matter; templates come in five tilts, mirrored and not, with an outline
    and without. The measure is intersection over union.
    """
    mask = subject_mask(pixels)
    if mask.sum() < 30:
        return ""
    names, templates = _templates()
    normal = _normalised(mask)
    overlap = (templates & normal).sum(axis=(1, 2)) / (templates | normal).sum(axis=(1, 2))
    return names[int(overlap.argmax())]


def has_outline(pixels: np.ndarray) -> bool:
    """Return whether at least 60 % of the subject's rim (about three pixels) is ink."""
    mask = subject_mask(pixels)
    rim = mask & ~_eroded(mask, 3)
    return bool(rim.any()) and bool(_is_ink(pixels)[rim].mean() >= 0.6)


def eye_count(pixels: np.ndarray) -> int:
    """Return the number of dark pupils in a light ring, at least five pixels apart."""
    luma = _luma(pixels)
    found: list[tuple[float, int, int]] = []
    for pupil, ring in ((1.5, 3.2), (2.2, 4.2), (2.9, 5.2), (3.7, 6.0)):
        light, dark = _disc_offsets(ring - 0.9, ring), _disc_offsets(-1, pupil - 0.5)
        around = _mean_over(luma, light)
        contrast = around - _mean_over(luma, dark)
        closed = _mean_over(luma > 150, light) >= 0.85
        for y, x in np.argwhere(closed & (contrast > 60)):
            found.append((float(contrast[y, x]), int(y), int(x)))
    kept: list[tuple[int, int]] = []
    for _, y, x in sorted(found, reverse=True):
        if all(np.hypot(y - v, x - u) >= 5 for v, u in kept):
            kept.append((y, x))
    return len(kept)


def is_sketchbook(pixels: np.ndarray) -> bool:
    """Return whether an image is in tiny-sketchbook's style: cream paper, outline, two eyes."""
    return background_name(pixels) == "paper" and has_outline(pixels) and eye_count(pixels) >= 2


def is_striped(pixels: np.ndarray) -> bool:
    """Return whether the subject alternates between its colour and light (or grey) diagonals.

    Luma inside the subject is projected on the diagonal and compared, over one period, with
    what a rise and fall of 14 grey levels would give.
    """
    inside = _eroded(subject_mask(pixels), 2)
    if inside.sum() < 40:
        return False
    rows, columns = np.nonzero(inside)
    luma = _luma(pixels)[inside]
    phase = np.exp(2j * np.pi * (rows + columns) / STRIPE_SPACING)
    return bool(2 * abs(((luma - luma.mean()) * phase).mean()) > 14)


def subject_mask(pixels: np.ndarray) -> np.ndarray:
    """Return the subject's pixels, (64, 64) bool: the largest thing unlike the background, filled.

    Ruled lines and soft shadows (a darkened background) do not count.
    """
    colours, ground = pixels.astype(float), _frame_median(pixels).astype(float)
    mask = np.linalg.norm(colours - ground, axis=-1) > FOREGROUND_DISTANCE
    if background_name(pixels) == "paper":
        mask &= np.linalg.norm(colours - RULE, axis=-1) > 40
    return _filled(_largest_part(mask)) if mask.any() else mask


def _frame_median(pixels: np.ndarray) -> np.ndarray:
    frame = np.ones(pixels.shape[:2], dtype=bool)
    frame[2:-2, 2:-2] = False
    return np.median(pixels[frame], axis=0)


def _nearest(colour: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - palette[name])))


def _luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114])


def _is_ink(pixels: np.ndarray) -> np.ndarray:
    return pixels.max(axis=-1) < INK_LEVEL


def _disc_offsets(inner: float, outer: float) -> list[tuple[int, int]]:
    """Return the pixel offsets whose length is above `inner` and at most `outer`."""
    rows, columns = np.mgrid[-6:7, -6:7]
    distance = np.hypot(rows, columns)
    chosen = (distance > inner) & (distance <= outer)
    return list(zip(rows[chosen].tolist(), columns[chosen].tolist(), strict=True))


def _mean_over(values: np.ndarray, offsets: list[tuple[int, int]]) -> np.ndarray:
    """Return, for every pixel, the mean of `values` at the offsets from it."""
    rolled = [np.roll(values, offset, axis=(0, 1)) for offset in offsets]
    return np.mean(rolled, axis=0)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask: every pixel takes its part's highest label."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = np.where(mask, np.max(_neighbours(labels), axis=0), 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    return mask & (labels == counts.argmax())


def _filled(mask: np.ndarray) -> np.ndarray:
    """Return the mask and whatever cannot be reached from the frame without crossing it."""
    outside = ~np.pad(np.ones((SIZE - 2, SIZE - 2), dtype=bool), 1) & ~mask
    while True:
        spread = np.max(_neighbours(outside), axis=0) & ~mask
        if np.array_equal(spread, outside):
            return ~outside
        outside = spread


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        mask = np.min(_neighbours(mask), axis=0)
    return mask


def _neighbours(values: np.ndarray) -> list[np.ndarray]:
    """Return the values of every pixel itself, below, above, right and left; 0 off the frame."""
    padded = np.pad(values, 1)
    shifts = (slice(1, -1), slice(1, -1)), (slice(2, None), slice(1, -1))
    shifts += (slice(None, -2), slice(1, -1)), (slice(1, -1), slice(2, None))
    shifts += ((slice(1, -1), slice(None, -2)),)
    return [padded[rows, columns] for rows, columns in shifts]


def _normalised(mask: np.ndarray) -> np.ndarray:
    """Return the mask's bounding box, centred and scaled to fill 32×32, as bool."""
    rows, columns = np.nonzero(mask)
    crop = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = crop.shape
    side = max(height, width)
    square = np.zeros((side, side), dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = crop * 255
    return np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.BOX)) > 127


@lru_cache(maxsize=1)
def _templates() -> tuple[list[str], np.ndarray]:
    """Return subject names and their normalised masks, (N, 32, 32) bool."""
    names, masks = [], []
    for name, tilt, mirrored, outline in product(SHAPES, TILTS, (False, True), (0, OUTLINE_WIDTH)):
        scene = Scene(name, "red", "white", radius=20, tilt=tilt, mirrored=mirrored)
        image = Image.new("1", (SIZE * SUPERSAMPLING,) * 2)
        points = [(float(x), float(y)) for x, y in outline_points(scene)]
        canvas = ImageDraw.Draw(image)
        canvas.polygon(points, fill=1)
        if outline:
            canvas.line(points + points[:2], 1, round(outline * SUPERSAMPLING), joint="curve")
        masks.append(_normalised(np.asarray(image)))
        names.append(name)
    return names, np.stack(masks)
