"""Draws the silhouettes of the demo's subjects, each as one closed polygon.

Coordinates are in units of the subject's radius: x to the right, y downwards, both within
about [-1, 1]. One polygon per subject, so that filling, outlining and clipping work alike on all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Polygon = np.ndarray
"""Points in order around the shape: (N, 2) floats."""


def _polar(radius: Callable[[np.ndarray], np.ndarray], points: int = 120) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    r = radius(angle)
    return np.stack([r * np.sin(angle), -r * np.cos(angle)], axis=1)


def _arc(centre: tuple[float, float], radius: float, start: float, stop: float) -> Polygon:
    """Return an arc; angles in degrees, 0 upwards, clockwise."""
    angle = np.radians(np.linspace(start, stop, 40))
    x, y = centre
    return np.stack([x + radius * np.sin(angle), y - radius * np.cos(angle)], axis=1)


def _star() -> Polygon:
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.47)
    return np.stack([radius * np.sin(angle), 0.06 - radius * np.cos(angle)], axis=1)


def _heart() -> Polygon:
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16.5, -(y + 2.5) / 15.5], axis=1)


def _moon() -> Polygon:
    outer = _arc((0, 0), 1.0, 20, -200)
    inner = _arc((0.5, 0), 0.86, -155, -25)
    return np.concatenate([outer, inner])


def _fish() -> Polygon:
    """Return a fish that looks to the left: an ellipse, open at its tail."""
    angle = np.radians(np.linspace(25, 335, 60))
    body = np.stack([-0.2 + 0.82 * np.cos(angle), -0.66 * np.sin(angle)], axis=1)
    tail = [[1.04, 0.66], [0.86, 0.0], [1.04, -0.66]]
    return np.concatenate([body, tail])


def _cat() -> Polygon:
    """Return a cat's head: a wide ellipse with two pointed ears."""
    face = _arc((0, 0.12), 0.84, 62, 298) * [1.08, 1.0]
    left, right = [[-0.86, -1.0], [-0.3, -0.66]], [[0.3, -0.66], [0.86, -1.0]]
    return np.concatenate([face, left, right])


def _mushroom() -> Polygon:
    cap = _arc((0, 0.05), 1.0, -90, 90) * [1.0, 0.95]
    stem = [[0.34, 0.06], [0.4, 0.95], [-0.4, 0.95], [-0.34, 0.06]]
    return np.concatenate([cap, stem])


def _points(*points: tuple[float, float]) -> Polygon:
    return np.array(points, dtype=float)


SHAPES: dict[str, Polygon] = {
    "circle": _polar(lambda a: np.full_like(a, 0.92)),
    "square": _points((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "triangle": _points((0, -0.98), (1.0, 0.78), (-1.0, 0.78)),
    "star": _star(),
    "heart": _heart(),
    "moon": _moon(),
    "flower": _polar(lambda a: 0.78 + 0.25 * np.cos(5 * a)),
    "fish": _fish(),
    "house": _points(
        (0, -1.0), (1.0, -0.2), (0.76, -0.2), (0.76, 0.9), (-0.76, 0.9), (-0.76, -0.2), (-1.0, -0.2)
    ),
    "tree": _points(
        (0, -1.05),
        (0.6, -0.25),
        (0.36, -0.25),
        (0.85, 0.55),
        (0.2, 0.55),
        (0.2, 1.0),
        (-0.2, 1.0),
        (-0.2, 0.55),
        (-0.85, 0.55),
        (-0.36, -0.25),
        (-0.6, -0.25),
    ),
    "cat": _cat(),
    "mushroom": _mushroom(),
}

EYES: dict[str, tuple[float, float, float]] = {
    "circle": (0.0, -0.1, 0.34),
    "square": (0.0, -0.1, 0.34),
    "triangle": (0.0, 0.3, 0.3),
    "star": (0.0, -0.02, 0.27),
    "heart": (0.0, -0.18, 0.34),
    "moon": (-0.62, 0.0, 0.25),
    "flower": (0.0, 0.0, 0.3),
    "fish": (-0.42, -0.08, 0.27),
    "house": (0.0, 0.2, 0.34),
    "tree": (0.0, 0.26, 0.28),
    "cat": (0.0, 0.08, 0.38),
    "mushroom": (0.0, -0.34, 0.34),
}
"""Position of two eyes: the point between them (x, y) and half of their distance, in radii."""
