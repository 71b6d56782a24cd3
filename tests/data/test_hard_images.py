"""Images and captions as the world has them: each is used rightly or named in a sentence."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from hublora.data import Skipped, open_source
from hublora.data.captions import as_captions
from hublora.errors import DataError
from tests.data.images import noise_image


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("a cat", ("a cat",)),
        (["a cat", "  the\ncat "], ("a cat", "the cat")),
        ([["a cat"], ["the cat", None]], ("a cat", "the cat")),
        (["", "a cat", "  "], ("a cat",)),
        ("写真の猫、赤い", ("写真の猫、赤い",)),
        ("صورة قطة", ("صورة قطة",)),
        ("кошка 🐈", ("кошка 🐈",)),
        ("", ()),
        (" \n\t", ()),
        ([], ()),
        (None, ()),
        (7, ()),
        ({"en": "a cat"}, ()),
    ],
)
def test_captions_are_read_from_whatever_a_cell_holds(cell, captions):
    assert as_captions(cell) == captions


def test_an_empty_caption_is_none_unless_it_is_asked_for(photos, configure):
    (photos / "0.txt").write_text(" \n")
    source = open_source(configure(folder=photos))
    assert source.skipped == [Skipped("0.png", "has no caption")]
    source = open_source(configure(folder=photos, default_caption=""))
    assert source.examples[0].captions == ("",)


def test_metadata_without_captions_can_be_given_one(photos, configure):
    lines = (json.dumps({"file_name": f"{n}.png"}) for n in range(5))
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="no column with captions"):
        open_source(configure(folder=photos))
    source = open_source(configure(folder=photos, default_caption="a photo"))
    assert {one.captions for one in source.examples} == {("a photo",)}


def test_a_tenth_that_is_damaged_is_left_out_and_named(tmp_path, configure):
    for number in range(20):
        noise_image(number, 32, 32).save(tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text("a")
    for number in (3, 17):
        path = tmp_path / f"{number:02}.png"
        path.write_bytes(path.read_bytes()[:300])
    source = open_source(configure(folder=tmp_path))
    assert len(source.examples) == 18
    note = source.skipped_note()
    assert note is not None
    assert note.startswith("2 of 20 images are skipped: 03.png is damaged")


@pytest.mark.parametrize("size", [(30_000, 10), (10, 30_000), (33, 1)])
def test_an_image_of_which_nothing_would_be_seen_is_left_out(photos, configure, size):
    Image.new("RGB", size).save(photos / "0.png")
    source = open_source(configure(folder=photos))
    width, height = size
    assert source.skipped == [
        Skipped("0.png", f"is {width}×{height}, above the aspect ratio limit of 32:1")
    ]


def test_a_long_image_is_used(photos, configure):
    Image.new("RGB", (640, 20)).save(photos / "0.png")
    assert open_source(configure(folder=photos)).examples[0].size == (640, 20)


def test_one_image_is_enough(tmp_path, configure):
    noise_image(0).save(tmp_path / "only.png")
    (tmp_path / "only.txt").write_text("a")
    assert len(open_source(configure(folder=tmp_path)).examples) == 1
