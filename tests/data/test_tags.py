"""Tags change their order and are left out, deterministically, and every way is cached."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hublora.data import Encoders, build_cache, open_source
from hublora.data.tags import Tags

CAPTION = "sks dog, red, small,  on grass , sitting"
TAGS = ["sks dog", "red", "small", "on grass", "sitting"]


def split(caption: str) -> list[str]:
    return caption.split(", ") if caption else []


def test_the_first_tags_stay_and_the_others_move():
    tags = Tags(shuffle=True, keep=2, variants=100)
    ways = [split(tags.write(CAPTION, number)) for number in range(100)]
    assert all(way[:2] == TAGS[:2] and sorted(way) == sorted(TAGS) for way in ways)
    assert len({tuple(way) for way in ways}) == 6, "every order of the other three"


def test_each_other_tag_is_left_out_at_the_asked_rate():
    tags = Tags(dropout=0.3, keep=1, variants=3000)
    ways = [split(tags.write(CAPTION, number)) for number in range(3000)]
    counts = Counter(tag for way in ways for tag in way)
    assert counts["sks dog"] == 3000
    for tag in TAGS[1:]:
        assert counts[tag] / 3000 == pytest.approx(0.7, abs=0.03)
    assert all(way == [tag for tag in TAGS if tag in way] for way in ways), "in their order"
    assert Tags(dropout=1.0).write("a, b", 0) == ""


def test_a_way_depends_on_seed_caption_and_variant_alone():
    tags = Tags(seed=1, shuffle=True, variants=8)
    assert tags.write(CAPTION, 3) == tags.write(CAPTION, 11)
    others = [Tags(seed=seed, shuffle=True, variants=8).write(CAPTION, 3) for seed in range(9)]
    assert len(set(others)) > 1
    assert len({Tags(shuffle=True, variants=None).write(CAPTION, n) for n in range(500)}) > 100


@pytest.mark.parametrize("caption", ["a dog on grass", "", "犬、赤い", "собака и кот"])
def test_a_caption_without_commas_stays(caption):
    assert Tags(shuffle=True, dropout=0.5, variants=4).write(caption, 2) == caption


def test_nothing_changes_unless_it_is_asked_for():
    assert Tags().write("a,b ,c", 5) == "a,b ,c"


@pytest.fixture
def tagged(photos):
    """One image with tags, one with two captions of which one has tags, and a plain one."""
    for number in (3, 4):
        (photos / f"{number}.png").unlink()
    rows = ['["a, b, c, d"]', '["plain", "e, f, g"]', '["plain"]']
    lines = (f'{{"file_name": "{n}.png", "text": {row}}}\n' for n, row in enumerate(rows))
    (photos / "metadata.jsonl").write_text("".join(lines))
    return photos


def test_every_way_is_encoded_once_and_found(tagged, configure):
    texts = []

    def prompts(batch):
        texts.extend(batch)
        return {
            "embeds": torch.tensor([[float(sum(map(ord, text)) + len(text))] for text in batch])
        }

    def build(**settings):
        config = configure(folder=tagged, center_crop=True, **settings)
        return build_cache(
            open_source(config),
            config,
            Encoders(lambda pixels: (pixels, pixels.abs()), prompts),
            size=(16, 16),
        )

    data = build(shuffle_tags=True, tag_dropout=0.5, keep_tags=1, caption_variants=5)
    assert texts[:4] == ["", "a, b, c, d", "plain", "e, f, g"]
    assert len(texts) == len(set(texts)) <= 4 + 2 * 5
    seen = {data.caption(0, choice) for choice in range(1, 200)}
    assert len(seen) > 3
    assert all(way.startswith("a") for way in seen)
    assert data.caption(0, 0) == "a, b, c, d", "0 is the caption as it is"
    both = Counter(data.caption(1, choice) == "plain" for choice in range(1000))
    assert both[True] == 500
    for choice in range(50):
        text = data.caption(1, choice)
        expected = float(sum(map(ord, text)) + len(text))
        assert data.prompts([1], [choice])["embeds"].item() == expected
    texts.clear()
    assert build(shuffle_tags=True, tag_dropout=0.5, keep_tags=1, caption_variants=5).reused
    build(shuffle_tags=True, tag_dropout=0.5, keep_tags=1, caption_variants=5, seed=1)
    assert texts, "another seed writes other captions"
