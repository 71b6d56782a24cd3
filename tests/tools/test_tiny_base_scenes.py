"""What is drawn is what the captions say, and the shipped data sets are what the code draws."""

import json

import numpy as np
import pytest
from PIL import Image

from tools.tiny_base.captions import full_caption, random_caption, short_caption
from tools.tiny_base.scenes import COLOURS, INK, PAPER, SIZE, Scene, draw, random_scene
from tools.tiny_base.shapes import EYES, SHAPES
from tools.tiny_base.styles import ASSETS, STYLES, style_scenes


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(draw(scene))


def shows(scene: Scene, colour: tuple[int, int, int]) -> bool:
    distance = np.abs(pixels(scene).astype(int) - colour).max(axis=-1)
    return bool((distance < 12).sum() > 12)


def test_same_seed_samples_the_same_scene():
    first, second = (random_scene(np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize("subject", SHAPES)
def test_subject_and_background_have_the_colours_named(subject):
    scene = Scene(subject, "green", "yellow")
    image = pixels(scene)
    assert image.shape == (SIZE, SIZE, 3)
    assert tuple(image[1, 1]) == COLOURS["yellow"]
    assert shows(scene, COLOURS["green"])
    assert not shows(scene, INK)


@pytest.mark.parametrize("subject", SHAPES)
def test_every_subject_can_have_eyes(subject):
    assert subject in EYES
    assert shows(Scene(subject, "green", "yellow", eyes=True), (255, 255, 255))


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ({"outline": True}, "thick outline"),
        ({"eyes": True}, "two eyes"),
        ({"shadow": True}, "shadow"),
        ({"pattern": "striped"}, "striped"),
        ({"background": "paper"}, "cream paper"),
    ],
)
def test_a_feature_is_drawn_and_always_named(feature, words):
    plain = Scene("star", "green", "yellow")
    featured = Scene("star", "green", **{"background": "yellow", **feature})
    assert not np.array_equal(pixels(plain), pixels(featured))
    assert words in full_caption(featured)
    rng = np.random.default_rng(0)
    assert all(words in random_caption(featured, rng) for _ in range(50))
    assert not any(words in random_caption(plain, rng) for _ in range(50))


def test_captions_of_a_scene_say_nothing_wrong():
    scene = Scene("star", "green", "yellow")
    rng = np.random.default_rng(1)
    others = (set(SHAPES) | set(COLOURS)) - {"star", "green", "yellow"}
    captions = [random_caption(scene, rng) for _ in range(200)]
    assert not any(others & set(caption.replace(",", "").split()) for caption in captions)
    assert "a drawing of a green star on a yellow background" in captions
    assert full_caption(scene) in captions


@pytest.mark.parametrize("style", STYLES)
def test_shipped_data_set_is_what_the_code_draws(style):
    folder = ASSETS / style
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    scenes = style_scenes(style)
    assert len(lines) == len(scenes) == len(list(folder.glob("*.png")))
    for line, scene in zip(lines, scenes, strict=True):
        entry = json.loads(line)
        assert entry["text"] == short_caption(scene)
        drawn = pixels(scene).astype(int)
        shipped = np.asarray(Image.open(folder / entry["file_name"]).convert("RGB")).astype(int)
        assert np.abs(drawn - shipped).max() <= 2


def test_sketchbook_is_on_paper():
    assert tuple(pixels(style_scenes("tiny-sketchbook")[0])[1, 1]) == PAPER
