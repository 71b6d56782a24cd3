"""Images go into the shape nearest to their own, and are cached there."""

from __future__ import annotations

import pytest
import torch

from hublora.data import Encoders, build_cache, open_source, row_file
from hublora.data.buckets import bucket_sizes, default_step, nearest
from hublora.data.crops import assign_buckets, plan_crops
from hublora.data.images import prepare
from tests.data.images import noise_image

# Width and height, from https://huggingface.co/papers/2307.01952, appendix I.
SDXL = [
    *((2048, 512), (1984, 512), (1920, 512), (1856, 512), (1792, 576), (1728, 576), (1664, 576)),
    *((1600, 640), (1536, 640), (1472, 704), (1408, 704), (1344, 704), (1344, 768), (1280, 768)),
    *((1216, 832), (1152, 832), (1152, 896), (1088, 896), (1088, 960), (1024, 960)),
]


def test_at_1024_pixels_the_shapes_are_those_of_sdxl():
    assert default_step(1024, 8) == 64
    tall = [*SDXL, (1024, 1024)]
    assert bucket_sizes(1024, 64) == [*tall, *((w, h) for h, w in reversed(SDXL))]


@pytest.mark.parametrize(("side", "size_step"), [(64, 8), (72, 8), (512, 8), (768, 64), (100, 8)])
def test_shapes_fit_the_base_and_cost_no_more_than_the_square(side, size_step):
    step = default_step(side, size_step)
    sizes = bucket_sizes(side, step)
    assert (side, side) in sizes
    for height, width in set(sizes) - {(side, side)}:
        assert height % size_step == width % size_step == 0
        assert 0.9 * side**2 <= height * width <= side**2
        assert max(height, width) <= 4 * min(height, width)
        assert (width, height) in sizes


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ((1000, 1000), (1024, 1024)),
        ((1920, 1080), (768, 1344)),
        ((1080, 1920), (1344, 768)),
        ((4000, 3000), (896, 1152)),
        ((9000, 500), (512, 2048)),
    ],
)
def test_an_image_is_trained_in_the_nearest_shape(image, size):
    assert nearest(image, bucket_sizes(1024, 64)) == size


@pytest.fixture
def album(tmp_path):
    """Ten captioned images of four shapes."""
    folder = tmp_path / "album"
    folder.mkdir()
    sizes = [(64, 64), (96, 40), (40, 96), (64, 60), (110, 60), (64, 64)]
    for number, size in enumerate(sizes):
        noise_image(number, *size).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"image {number}")
    return folder


def build(source, config, seen=None, stop_after=10**9):
    seen = [] if seen is None else seen

    def encode(pixels):
        if sum(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        return small, small.abs()

    def prompts(texts):
        return {"embeds": torch.tensor([[float(len(text))] for text in texts])}

    return build_cache(
        source,
        config,
        Encoders(encode, prompts, batch_size=2),
        size=(64, 64),
        bucket_step=8,
    )


def test_each_shape_is_cached_by_itself(album, configure):
    config = configure(folder=album, aspect_buckets=True, random_flip=True)
    source = open_source(config)
    data = build(source, config)
    assert data.bucket_sizes == [(96, 40), (64, 64), (48, 80), (40, 96)]
    assert data.bucket_of == [1, 3, 0, 1, 2, 1]
    for index, example in enumerate(source.examples):
        height, width = data.bucket_sizes[data.bucket_of[index]]
        assert data.shape(index) == (3, height // 8, width // 8)
        plan = plan_crops([example], config, (height, width), 8)
        pixels = prepare(example.open(), (height, width), plan.crops[0][0], flip=True)
        expected = torch.nn.functional.avg_pool2d(torch.from_numpy(pixels)[None], 8)
        assert torch.equal(data.latents([index], [1])[0], expected)
        frame = data.size_conditioning([index], [0])[0].tolist()
        assert (frame[:2], frame[4:]) == ([*reversed(example.size)], [height, width])
    pair = data.latents([0, 5], [0, 0])[0]
    assert torch.equal(pair[1:], data.latents([5], [0])[0])
    seen = []
    assert build(source, config, seen).reused
    assert seen == []


def test_a_build_that_stopped_in_one_shape_goes_on_and_ends_in_the_same_bytes(
    album, configure, tmp_path, monkeypatch
):
    monkeypatch.setattr(row_file, "SECONDS_BETWEEN_SYNCS", 0.0)
    config = configure(folder=album, aspect_buckets=True, random_flip=True)
    source, seen = open_source(config), []
    whole = configure(
        folder=album, aspect_buckets=True, random_flip=True, cache_dir=tmp_path / "whole"
    )
    expected = build(source, whole, seen)
    total = sum(seen)
    with pytest.raises(KeyboardInterrupt):
        build(source, config, stop_after=6)
    seen.clear()
    resumed = build(source, config, seen)
    assert sum(seen) == total - 6
    for ours, theirs in zip(resumed.folders, expected.folders, strict=True):
        assert (ours / row_file.ROWS).read_bytes() == (theirs / row_file.ROWS).read_bytes()


def test_there_are_few_crops_where_little_sticks_out(album, configure):
    config = configure(folder=album, aspect_buckets=True)
    source = open_source(config)
    counts = {b.size: [len(one) for one in b.plan.crops] for b in arrange_all(source, config)}
    assert counts[(64, 64)] == [1, 1, 1], "64×60 covers 68×64: half a latent pixel sticks out"
    assert counts[(48, 80)] == [2], "110×60 covers 88×48"
    middle = arrange_all(source, configure(folder=album, aspect_buckets=True, center_crop=True))
    assert {crop.at for one in middle for crops in one.plan.crops for crop in crops} == {None}


def arrange_all(source, config):
    return assign_buckets(source.examples, config, (64, 64), 8)


def test_images_of_one_shape_share_one_bucket(photos, configure):
    config = configure(folder=photos)
    (one,) = assign_buckets(open_source(config).examples, config, (16, 24))
    assert (list(one.members), one.size) == ([0, 1, 2, 3, 4], (16, 24))
