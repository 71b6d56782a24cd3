"""Draws the demo's scenes: one flat subject on a plain background, 64×64.

A `Scene` states everything that is drawn; `draw` renders it as an image, `random_scene` samples
one. Every feature beyond subject, colour and background (an outline, eyes, a pattern, paper, a
shadow, a size) is drawn only if the scene says so, and the caption then names it: a model trained
on these scenes knows each feature under its own words.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tools.tiny_base.shapes import EYES, SHAPES, Polygon

SIZE = 64
"""Width and height of a scene in pixels."""

SUPERSAMPLING = 4
"""Scenes are drawn this many times larger and reduced, for smooth edges."""

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (216, 38, 44),
    "orange": (250, 135, 20),
    "yellow": (252, 214, 40),
    "green": (52, 158, 66),
    "teal": (40, 190, 196),
    "blue": (42, 84, 204),
    "purple": (130, 58, 176),
    "pink": (250, 152, 192),
    "brown": (124, 78, 44),
    "white": (250, 250, 250),
}
"""What subjects and backgrounds are painted with, sRGB."""

INK: Colour = (34, 32, 40)
WHITE: Colour = (255, 255, 255)
PAPER: Colour = (244, 232, 202)
RULE: Colour = (186, 196, 214)
"""The lines that paper is ruled with."""

RULE_SPACING = 8
STRIPE_SPACING = 11
OUTLINE_WIDTH = 3.2
RADII = (18.5, 23.0)
"""Range of a subject's radius in pixels."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is drawn in a scene.

    `background` is a colour's name or "paper"; `pattern` is "" or the word that the caption uses.
    `x`, `y` (centre) and `radius` are in pixels, `tilt` in radians; `eye_size`, in radii of the
    subject, is what eyes have at least.
    """

    subject: str
    colour: str
    background: str
    pattern: str = ""
    outline: bool = False
    eyes: bool = False
    eye_size: float = 0.0
    shadow: bool = False
    x: float = SIZE / 2
    y: float = SIZE / 2
    radius: float = 19.5
    tilt: float = 0.0
    mirrored: bool = False

    @property
    def plain(self) -> bool:
        """Whether subject, colour and background say it all."""
        features = (self.pattern, self.outline, self.eyes, self.shadow)
        return self.background != "paper" and not any(features)


def is_held_out(subject: str, colour: str, background: str) -> bool:
    """Return whether a combination is held out from training, to test on (about one in ten)."""
    return zlib.crc32(f"{subject}/{colour}/{background}".encode()) % 10 == 0


def random_scene(rng: np.random.Generator) -> Scene:
    """Return a random scene for training: half of them plain, the others with any features."""
    while True:
        subject, colour = rng.choice(list(SHAPES)), rng.choice(list(COLOURS))
        background = rng.choice([name for name in COLOURS if name != colour])
        if not is_held_out(subject, colour, background):
            break
    features: dict[str, Any] = {}
    if rng.random() < 0.55:
        if rng.random() < 0.3:
            background = "paper"
        features = {
            "pattern": str(rng.choice(["", "", "striped"])),
            "outline": bool(rng.random() < 0.35),
            "eyes": bool(rng.random() < 0.35),
            "shadow": bool(rng.random() < 0.25),
        }
    return placed(Scene(str(subject), str(colour), str(background), **features), rng)


def placed(scene: Scene, rng: np.random.Generator, radii: tuple[float, float] = RADII) -> Scene:
    """Return `scene` in a size of `radii`, somewhere inside the frame, slightly tilted."""
    radius = float(rng.uniform(*radii))
    slack = min(SIZE / 2 - radius - 4, 7.0)
    x, y = SIZE / 2 + rng.uniform(-slack, slack, 2)
    tilt = float(rng.uniform(-0.14, 0.14))
    mirrored = bool(rng.random() < 0.5)
    return replace(scene, x=x, y=y, radius=radius, tilt=tilt, mirrored=mirrored)


def draw(scene: Scene) -> Image.Image:
    """Return the scene as a 64×64 RGB image."""
    side = SIZE * SUPERSAMPLING
    image = Image.new("RGB", (side, side), background_colour(scene))
    canvas = ImageDraw.Draw(image)
    if scene.background == "paper":
        _rule(canvas)
    points = outline_points(scene)
    if scene.shadow:
        _shadow(image, points, scene)
    if scene.pattern:
        _fill_with_pattern(image, points, scene)
    else:
        canvas.polygon(_flat(points), fill=COLOURS[scene.colour])
    if scene.outline:
        _stroke(canvas, points)
    if scene.eyes:
        _eyes(canvas, scene)
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)


def background_colour(scene: Scene) -> Colour:
    """Return the colour that surrounds the subject."""
    return PAPER if scene.background == "paper" else COLOURS[scene.background]


def outline_points(scene: Scene) -> Polygon:
    """Return the subject's silhouette in pixels of the enlarged canvas, shape (N, 2)."""
    return _place(SHAPES[scene.subject], scene)


def _place(points: Polygon, scene: Scene) -> Polygon:
    if scene.mirrored:
        points = points * [-1, 1]
    cos, sin = math.cos(scene.tilt), math.sin(scene.tilt)
    turned = points @ np.array([[cos, sin], [-sin, cos]])
    return (turned * scene.radius + [scene.x, scene.y]) * SUPERSAMPLING


def _flat(points: Polygon) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return `a` with `share` of `b` in it."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _rule(canvas: ImageDraw.ImageDraw) -> None:
    side = SIZE * SUPERSAMPLING
    for line in range(RULE_SPACING // 2, SIZE, RULE_SPACING):
        top = line * SUPERSAMPLING
        canvas.rectangle((0, top, side, top + SUPERSAMPLING - 1), fill=RULE)


def _mask(points: Polygon) -> Image.Image:
    side = SIZE * SUPERSAMPLING
    mask = Image.new("1", (side, side))
    ImageDraw.Draw(mask).polygon(_flat(points), fill=1)
    return mask


def _shadow(image: Image.Image, points: Polygon, scene: Scene) -> None:
    offset = max(3.0, 0.24 * scene.radius) * SUPERSAMPLING
    colour = _mix(background_colour(scene), INK, 0.45)
    ImageDraw.Draw(image).polygon(_flat(points + offset), fill=colour)


def _fill_with_pattern(image: Image.Image, points: Polygon, scene: Scene) -> None:
    colour = COLOURS[scene.colour]
    light = _mix(colour, INK, 0.35) if scene.colour == "white" else _mix(colour, WHITE, 0.72)
    layer = Image.new("RGB", image.size, colour)
    canvas, side = ImageDraw.Draw(layer), image.width
    step = STRIPE_SPACING * SUPERSAMPLING
    for left in range(-side, side, step):
        ends = [(left, side), (left + side, 0)]
        canvas.line(ends, fill=light, width=round(3.4 * SUPERSAMPLING))
    image.paste(layer, mask=_mask(points))


def _stroke(canvas: ImageDraw.ImageDraw, points: Polygon) -> None:
    width = round(OUTLINE_WIDTH * SUPERSAMPLING)
    closed = np.concatenate([points, points[:2]])
    canvas.line(_flat(closed), fill=INK, width=width, joint="curve")


def _eyes(canvas: ImageDraw.ImageDraw, scene: Scene) -> None:
    x, y, half = EYES[scene.subject]
    half = max(half, scene.eye_size)
    unit = scene.radius * SUPERSAMPLING
    for centre in _place(np.array([[x - half, y], [x + half, y]]), scene):
        for share, colour in ((1.0, INK), (0.84, WHITE), (0.5, INK)):
            left, top = centre - share * half * unit
            right, bottom = centre + share * half * unit
            canvas.ellipse((left, top, right, bottom), fill=colour)
