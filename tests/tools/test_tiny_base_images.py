"""What is drawn is what the captions say, and the shipped data sets are what the code draws."""

import json

import numpy as np
import pytest
from PIL import Image

from tools.tiny_base.captions import full_caption, random_caption, short_caption
from tools.tiny_base.pictures import COLOURS, INK, PAPER, SIZE, Picture, draw, random_picture
from tools.tiny_base.shapes import EYES, SHAPES
from tools.tiny_base.styles import ASSETS, STYLES, style_pictures


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(draw(picture))


def shows(picture: Picture, colour: tuple[int, int, int]) -> bool:
    distance = np.abs(pixels(picture).astype(int) - colour).max(axis=-1)
    return bool((distance < 12).sum() > 12)


def test_same_seed_draws_the_same_picture():
    first, second = (random_picture(np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize("subject", SHAPES)
def test_subject_and_background_have_the_colours_named(subject):
    picture = Picture(subject, "green", "yellow")
    image = pixels(picture)
    assert image.shape == (SIZE, SIZE, 3)
    assert tuple(image[1, 1]) == COLOURS["yellow"]
    assert shows(picture, COLOURS["green"])
    assert not shows(picture, INK)


@pytest.mark.parametrize("subject", SHAPES)
def test_every_subject_can_have_eyes(subject):
    assert subject in EYES
    assert shows(Picture(subject, "green", "yellow", eyes=True), (255, 255, 255))


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
    plain = Picture("star", "green", "yellow")
    featured = Picture("star", "green", **{"background": "yellow", **feature})
    assert not np.array_equal(pixels(plain), pixels(featured))
    assert words in full_caption(featured)
    rng = np.random.default_rng(0)
    assert all(words in random_caption(featured, rng) for _ in range(50))
    assert not any(words in random_caption(plain, rng) for _ in range(50))


def test_captions_of_a_picture_say_nothing_wrong():
    picture = Picture("star", "green", "yellow")
    rng = np.random.default_rng(1)
    others = (set(SHAPES) | set(COLOURS)) - {"star", "green", "yellow"}
    captions = [random_caption(picture, rng) for _ in range(200)]
    assert not any(others & set(caption.replace(",", "").split()) for caption in captions)
    assert "a drawing of a green star on a yellow background" in captions
    assert full_caption(picture) in captions


@pytest.mark.parametrize("style", STYLES)
def test_shipped_data_set_is_what_the_code_draws(style):
    folder = ASSETS / style
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    pictures = style_pictures(style)
    assert len(lines) == len(pictures) == len(list(folder.glob("*.png")))
    for line, picture in zip(lines, pictures, strict=True):
        entry = json.loads(line)
        assert entry["text"] == short_caption(picture)
        drawn = pixels(picture).astype(int)
        shipped = np.asarray(Image.open(folder / entry["file_name"]).convert("RGB")).astype(int)
        assert np.abs(drawn - shipped).max() <= 2


def test_sketchbook_is_on_paper():
    assert tuple(pixels(style_pictures("tiny-sketchbook")[0])[1, 1]) == PAPER
