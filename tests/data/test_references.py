"""Pairs: references are found, cropped as their images are, cached, and missing ones named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hublora.data import Encoders, Skipped, build_cache, open_source
from hublora.data.columns import choose_columns
from hublora.data.folder import list_images
from hublora.data.images import Crop
from hublora.data.pair_cache import ReferenceEncoders
from hublora.data.references import crop_reference, find_reference_columns
from hublora.errors import DataError
from tests.data.images import noise_image

SIZE = (16, 24)


@pytest.fixture
def paired(photos):
    """The photos of 40×48, 50×48, …, four of five with references beside them, one with two."""
    for number in range(4):
        with Image.open(photos / f"{number}.png") as image:
            image.save(photos / f"{number}.control.png")
    noise_image(9, 30, 30).save(photos / "3.control2.jpg")
    return photos


def test_references_beside_images_are_no_images(paired, configure):
    source = open_source(configure(folder=paired))
    assert [one.name for one in source.examples] == [f"{n}.png" for n in range(4)]
    assert [len(one.references) for one in source.examples] == [1, 1, 1, 2]
    assert source.skipped == [Skipped("4.png", "has no reference image")]
    assert source.examples[3].reference_sizes == (source.examples[3].size, (30, 30))
    assert (
        "Pairs: each image of photos has 1 to 2 reference images (x.control.png beside x.png)."
        in source.notes
    )
    alone = open_source(configure(folder=paired, references=False))
    assert len(alone.examples) == 5
    assert not any(one.references for one in alone.examples)
    assert "5 reference images are beside the images and unused" in alone.notes[0]
    assert [one.name for one in list_images(paired)] == [f"{n}.png" for n in range(5)]
    assert alone.fingerprint != source.fingerprint
    with pytest.raises(DataError, match=r"4\.png has no reference image"):
        open_source(configure(folder=paired, strict=True))


def test_data_without_references_has_the_fingerprint_that_it_had(photos, configure):
    """So that what was cached and checked before is found again."""
    both = (open_source(configure(folder=photos, references=value)) for value in (None, False))
    one, other = both
    assert one.fingerprint == other.fingerprint
    assert one.references_fingerprint == ""
    with pytest.raises(DataError, match="No image of photos has a reference image"):
        open_source(configure(folder=photos, references=True))


def test_references_in_the_metadata_may_be_several(photos, configure):
    (photos / "before").mkdir()
    rows = []
    for number in range(3):
        (photos / f"{number}.png").rename(photos / "before" / f"{number}.png")
        noise_image(number, 40, 48).save(photos / f"{number}.png")
        named = [f"before/{number}.png", "4.png"] if number == 2 else f"before/{number}.png"
        rows.append({"file_name": f"{number}.png", "text": "redder", "source_image": named})
    lines = "\n".join(map(json.dumps, rows))
    (photos / "metadata.jsonl").write_text(lines)
    source = open_source(configure(folder=photos))
    assert [len(one.references) for one in source.examples] == [1, 1, 2]
    assert [one.name for one in source.skipped] == ["3.png"], "named as a reference is named"
    assert "(column 'source_image' of metadata.jsonl)" in source.notes[-1]
    (photos / "metadata.jsonl").write_text(lines.replace("before/1.png", "../1.png"))
    with pytest.raises(DataError, match="is outside of the folder"):
        open_source(configure(folder=photos))


def test_a_column_of_other_text_is_no_reference(photos, configure):
    rows = [{"file_name": f"{n}.png", "text": "a", "source": "flickr"} for n in range(5)]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(configure(folder=photos))
    assert not any(one.references for one in source.examples)
    with pytest.raises(DataError, match="has no column of reference images 'before'"):
        open_source(configure(folder=photos, reference_column="before"))


def test_damaged_and_double_references_are_named(paired, configure):
    (paired / "1.control.png").write_bytes(b"no image")
    (skipped, _) = open_source(configure(folder=paired)).skipped
    assert skipped.name == "1.png"
    assert skipped.reason == "has a reference image that is not an image of a known format"
    noise_image(9, 30, 30).save(paired / "2.control1.png")
    with pytest.raises(DataError, match="are both reference 1 of '2'"):
        open_source(configure(folder=paired))


@pytest.mark.parametrize(
    ("columns", "image", "references"),
    [
        (["image", "control"], "image", ("control",)),
        (["target", "source"], "target", ("source",)),
        (["edited_image", "original_image"], "edited_image", ("original_image",)),
        (["control2", "control", "image"], "image", ("control", "control2")),
        (["input_image"], "input_image", ()),
    ],
)
def test_columns_are_found_by_the_names_that_the_field_uses(columns, image, references, configure):
    from datasets import Image as Column
    from datasets import List, Value

    kinds = {name: Column() for name in columns} | {"text": Value("string")}
    found = choose_columns(configure(dataset="a/b"), kinds, lambda name: [])
    assert (found.image, found.references) == (image, references)
    plain = choose_columns(configure(dataset="a/b", references=False), kinds, lambda name: [])
    assert plain.references == ()
    listed = {"image": Column(), "control_images": List(Column()), "text": Value("string")}
    assert choose_columns(configure(dataset="a/b"), listed, lambda n: []).references == (
        "control_images",
    )
    assert find_reference_columns("b, a", ["a", "b"], "here") == ["b", "a"]


def test_a_reference_is_cropped_and_mirrored_as_its_image():
    image = noise_image(1, 48, 24)
    large = image.resize((96, 48), Image.Resampling.NEAREST)
    for at in (0.0, 0.3, 0.99):
        for flip in (False, True):
            crop = Crop(at)
            left = crop.offset(48 - 24)
            part = crop_reference(large, image.size, (24, 24), crop, flip)
            expected = large.crop((2 * left, 0, 2 * left + 48, 48))
            if flip:
                expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            assert part.size == (48, 48)
            assert (np.asarray(part) == np.asarray(expected)).all()
    square = noise_image(2, 30, 30)
    whole = crop_reference(square, image.size, (24, 24), Crop(0.5), False)
    assert (np.asarray(whole) == np.asarray(square)).all(), "of another aspect ratio"


def build(source, config, seen=None):
    def encode(pixels):
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        return small, small.abs()

    def instruct(text, images, length):
        seen.append((text, [image.size for image in images], length))
        mean = float(np.mean([np.asarray(image, np.float32).mean() for image in images]))
        return {"embeds": torch.tensor([[mean, float(len(text))]])}

    references = ReferenceEncoders(
        lambda size, side: (size[0] // 8 * 8, size[1] // 8 * 8),
        lambda image, side: image.resize((image.width // 8 * 8, image.height // 8 * 8)),
        instruct if seen is not None else None,
        lambda texts, sizes: [len(text) + len(sizes) for text in texts],
    )
    encoders = Encoders(
        encode,
        lambda texts: {"embeds": torch.zeros(len(texts), 2)},
        batch_size=3,
        references=references,
    )
    return build_cache(source, config, encoders, size=SIZE)


def test_references_are_cached_with_their_images(paired, configure):
    config = configure(folder=paired, random_flip=True, crop_variants=2)
    source = open_source(config)
    data = build(source, config)
    assert len(data.bucket_sizes) == 4, "references of four sizes"
    for index, example in enumerate(source.examples):
        latents, mirrored = (data.references([index], [variant])[0] for variant in (0, 1))
        image, mirrored_image = (data.latents([index], [variant])[0] for variant in (0, 1))
        assert len(data.references([index], [0])) == len(example.references)
        assert latents.shape[1:2] == image.shape[1:2]
        assert torch.allclose(latents.flip(-1), mirrored, atol=0.02)
        assert torch.allclose(image.flip(-1), mirrored_image, atol=1e-6)
    assert build(source, config).reused
    with Image.open(paired / "0.control.png") as image:
        changed = image.rotate(180)
    changed.save(paired / "0.control.png")
    other = open_source(config)
    assert other.images_fingerprint == source.images_fingerprint
    again = build(other, config)
    assert not torch.equal(again.references([0], [0])[0], data.references([0], [0])[0])


def test_prompts_beside_references_have_a_row_each(paired, configure):
    config = configure(folder=paired, random_flip=True, center_crop=True)
    source, seen = open_source(config), []
    data = build(source, config, seen)
    assert len(seen) == 8, "four images, each mirrored too"
    assert all(text for text, _, _ in seen), "the empty caption only with caption dropout"
    assert {(len(sizes), length) for _, sizes, length in seen} == {(1, 8), (2, 9)}, "image 0"
    plain = data.prompts([0], [0], variants=[0])["embeds"]
    assert plain.shape == (1, 2)
    assert not torch.equal(plain, data.prompts([1], [0], variants=[0])["embeds"])
    dropped = configure(folder=paired, caption_dropout=0.5, center_crop=True)
    with_empty = build(source, dropped, seen)
    assert with_empty.prompts([0], [-1])["embeds"][0, 1] == 0
    with pytest.raises(KeyError):
        data.prompts([0], [-1])
