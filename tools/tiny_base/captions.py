"""Writes captions for the demo's scenes: many wordings, each naming every feature drawn.

A caption may leave out subject, colour or background (whatever it leaves out varies from scene
to scene); it never leaves out a feature such as an outline or eyes, so that a prompt which does
not name them gets none.
"""

from __future__ import annotations

import numpy as np

from tools.tiny_base.scenes import COLOURS, Scene
from tools.tiny_base.shapes import SHAPES

OPENINGS = ("a drawing of ", "a drawing of ", "", "", "a picture of ", "an image of ")

WORDS: tuple[str, ...] = (
    *SHAPES, *COLOURS,
    "a", "an", "the", "of", "on", "in", "with", "and", "drawing", "picture", "image", "colored",
    "background", "paper", "cream", "thick", "outline", "two", "eyes", "shadow", "striped",
    "style", "photo",
)  # fmt: skip
"""Every word that captions use (and a few that prompts like to); each becomes one token."""


def full_caption(scene: Scene) -> str:
    """Return the caption that names everything: "a drawing of a green star on a red background"."""
    return "a drawing of " + _sentence(scene, scene.subject, scene.colour, background=True)


def short_caption(scene: Scene) -> str:
    """Return a caption that names only subject and colour: "a drawing of a green star"."""
    return f"a drawing of {_article(scene.colour)} {scene.subject}"


def random_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return one of the many captions of `scene`: whole or partial, a sentence or keywords.

    Scenes without features are sometimes called by an invented word, so that a model also
    answers an unknown word with a clean image.
    """
    subject, colour, background = scene.subject, scene.colour, True
    if rng.random() < 0.3:
        background = False
    if rng.random() < 0.12:
        colour = ""
    if scene.plain:
        roll = rng.random()
        if roll < 0.05:
            return invented_words(rng)
        if roll < 0.10:
            subject = invented_words(rng)
        elif roll < 0.14:
            return str(rng.choice(["a drawing", "a picture", "an image", "drawing"]))
    if rng.random() < 0.2:
        return _keywords(scene, subject, colour, background)
    return str(rng.choice(OPENINGS)) + _sentence(scene, subject, colour, background)


def invented_words(rng: np.random.Generator) -> str:
    """Return one to three words that mean nothing, from syllables or from single letters."""
    words = []
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.7:
            syllables = rng.choice(list("bcdfghjklmnprstvwz"), 3), rng.choice(list("aeiouy"), 3)
            pairs = list(zip(*syllables, strict=True))[: rng.integers(1, 4)]
            words.append("".join(a + b for a, b in pairs))
        else:
            letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
            words.append("".join(rng.choice(letters, rng.integers(1, 9))))
    return " ".join(words)


def _sentence(scene: Scene, subject: str, colour: str, background: bool) -> str:
    words = [scene.pattern, colour, subject]
    text = _article(" ".join(word for word in words if word))
    features = _features(scene)
    if features:
        text += " with " + " and ".join(features)
    if scene.background == "paper":
        return text + " on cream paper"
    if background:
        text += f" on {_article(scene.background)} background"
    return text


def _keywords(scene: Scene, subject: str, colour: str, background: bool) -> str:
    words = (scene.pattern, colour, subject)
    parts = [" ".join(word for word in words if word)]
    parts += [feature.removeprefix("a ") for feature in _features(scene)]
    if scene.background == "paper":
        parts.append("cream paper")
    elif background:
        parts.append(f"{scene.background} background")
    return ", ".join(parts)


def _features(scene: Scene) -> list[str]:
    named = (
        (scene.outline, "a thick outline"),
        (scene.eyes, "two eyes"),
        (scene.shadow, "a shadow"),
    )
    return [words for present, words in named if present]


def _article(words: str) -> str:
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"
