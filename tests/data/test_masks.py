"""Masks are found, cut as their images are, cached, and missing or wrong ones are named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hublora.data import Encoders, Skipped, build_cache, open_source
from hublora.data.crops import plan_crops
from hublora.data.images import cut, resize
from hublora.errors import DataError
from tests.data.images import noise_image

SIZE = (16, 24)


def halves(width: int, height: int) -> Image.Image:
    """Return a mask whose left half is white."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, : width // 2] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def masked(photos):
    """The photos, four of five with a mask beside them, named in both ways."""
    for number in range(4):
        name = f"{number}.mask.png" if number % 2 else f"{number}-masklabel.png"
        halves(40 + 10 * number, 48).save(photos / name)
    return photos


def build(source, config):
    def encode(pixels):
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        return small, small.abs()

    return build_cache(
        source,
        config,
        Encoders(encode, None, batch_size=3),
        size=SIZE,
    )


def test_masks_beside_images_are_no_images(masked, configure):
    source = open_source(configure(folder=masked))
    assert [one.name for one in source.examples] == [f"{n}.png" for n in range(5)]
    assert not source.skipped
    assert [one.mask for one in source.examples] == [None] * 5
    assert "4 masks are beside the images and unused" in source.notes[0]
    masks = open_source(configure(folder=masked, masks=True))
    assert [one.mask is not None for one in masks.examples] == [True] * 4 + [False]
    assert masks.notes == ["1 of 5 images have no mask and are learned as a whole."]


def test_an_image_that_is_only_called_like_a_mask_is_an_image(photos, configure):
    (photos / "4.png").rename(photos / "clown.mask.png")
    (photos / "4.txt").rename(photos / "clown.mask.txt")
    assert "clown.mask.png" in [one.name for one in open_source(configure(folder=photos)).examples]


def test_masks_are_cut_and_mirrored_as_the_images_are(photos, configure):
    """An image that is its own mask has latents of the mask's own values."""
    for number in range(5):
        grey = noise_image(number, 40 + 10 * number, 48).convert("L")
        grey.save(photos / f"{number}.png")
        grey.save(photos / f"{number}.mask.png")
    config = configure(folder=photos, masks=True, random_flip=True, interpolation="bilinear")
    source = open_source(config)
    data = build(source, config)
    plan = plan_crops(source.examples, config, SIZE)
    for index in (0, 3, 4):
        for variant in range(data.variants):
            mask = data.masks([index], [variant])
            assert mask.shape == (1, 1, 2, 3)
            _, crop, flip = plan.of_row(plan.row(index, variant))
            image = resize(source.examples[index].open().convert("RGB"), SIZE, "bilinear")
            pixels = torch.from_numpy(cut(image, SIZE, crop, flip))[None, :1]
            expected = torch.nn.functional.avg_pool2d((pixels + 1) / 2, 8)
            assert torch.allclose(mask, expected, atol=1 / 255)


def test_a_mask_of_another_size_is_laid_over_its_image(photos, configure):
    halves(400, 480).save(photos / "0.mask.png")
    config = configure(folder=photos, masks=True, center_crop=True)
    data = build(open_source(config), config)
    assert data.masks([0, 1], [0, 0])[:, 0, 0].tolist() == [
        pytest.approx([1, 0.5, 0], abs=0.05),
        [1, 1, 1],
    ]


def test_other_masks_leave_the_latents_as_they_are(masked, configure):
    config = configure(folder=masked, masks=True)
    first = build(open_source(config), config)
    halves(40, 48).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(masked / "0-masklabel.png")
    second = build(open_source(config), config)
    assert second.reused
    assert open_source(config).fingerprint != open_source(configure(folder=masked)).fingerprint
    assert torch.equal(first.masks([1], [0]), second.masks([1], [0]))
    assert not torch.equal(first.masks([0], [0]), second.masks([0], [0]))


def test_masks_are_named_in_the_metadata(photos, configure):
    (photos / "masks").mkdir()
    halves(40, 48).save(photos / "masks" / "zero.png")
    rows = [{"file_name": f"{n}.png", "text": "a", "mask": None} for n in range(5)]
    rows[0]["mask"] = "masks/zero.png"
    (photos / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(configure(folder=photos, masks=True))
    assert (len(source.examples), source.skipped) == (5, [])
    assert source.examples[0].mask is not None
    assert source.examples[1].mask is None
    rows[0]["mask"] = "../zero.png"
    (photos / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="outside of the folder"):
        open_source(configure(folder=photos, masks=True))


def test_masks_that_cannot_be_used_are_named(masked, configure):
    (masked / "0-masklabel.png").write_bytes(b"")
    halves(48, 40).save(masked / "1.mask.png")
    source = open_source(configure(folder=masked, masks=True))
    assert source.skipped[:2] == [
        Skipped("0.png", "has a mask that is empty (0 bytes)"),
        Skipped("1.png", "has a mask of another aspect ratio (48×40 for 50×48)"),
    ]


def test_masks_that_are_asked_for_must_be_there(photos, configure):
    with pytest.raises(DataError, match=r"No image of photos has a mask") as caught:
        open_source(configure(folder=photos, masks=True))
    assert "x.mask.png" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"photos has no metadata.*no column of masks 'm'"):
        open_source(configure(folder=photos, masks=True, mask_column="m"))


def test_a_mask_that_is_all_black_is_named(photos, configure):
    for number in range(5):
        with Image.open(photos / f"{number}.png") as image:
            size = image.size
        Image.new("L", size, 0 if number == 3 else 1).save(photos / f"{number}.mask.png")
    source = open_source(configure(folder=photos, masks=True))
    assert [(one.name, one.reason) for one in source.skipped] == [
        ("3.png", "has a mask that is all black, so nothing of it would be learned")
    ]
    assert open_source(configure(folder=photos)).skipped == []
