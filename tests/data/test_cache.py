"""Latents and prompts are what the encoders gave, computed once and only when needed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from hublora.data import Encoders, build_cache, open_source
from hublora.data.crops import plan_crops
from hublora.data.images import prepare
from hublora.data.row_file import ROWS
from hublora.errors import ConfigError, DataError

SIZE = (16, 24)


class CountingEncoders:
    """Deterministic stand-ins for a VAE and a text encoder that count their work."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.image_count, self.texts = 0, []

    def images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.image_count += len(pixels)
        mean = avg_pool2d(pixels, 4).to(self.dtype)
        return mean, mean.abs() / 10 + 0.01

    def prompts(self, texts: list[str]) -> dict[str, torch.Tensor]:
        self.texts += texts
        codes = torch.tensor([[len(text), sum(map(ord, text))] for text in texts])
        embeds = codes.unsqueeze(1).expand(-1, 3, -1).to(torch.bfloat16)
        return {"prompt_embeds": embeds, "mask": codes > 0}


def build(source, config, encoders, **changes):
    """Build a cache with the fields of `Encoders`, the size and the progress of `changes`."""
    others = {name: changes.pop(name) for name in ("size", "progress") if name in changes}
    defaults = {
        "images": encoders.images,
        "prompts": encoders.prompts,
        "image_key": {"base": "abc"},
        "prompt_key": {"base": "abc"},
        "batch_size": 3,
    }
    given = Encoders(**{**defaults, **changes})
    return build_cache(source, config, given, **{"size": SIZE, **others})


@pytest.fixture
def settle(photos, configure):
    """Return a source and its config."""

    def make(**settings):
        config = configure(folder=photos, **settings)
        return open_source(config), config

    return make


@pytest.mark.parametrize("workers", [0, 3])
def test_every_crop_and_flip_is_encoded_from_its_own_pixels(settle, workers):
    source, config = settle(random_flip=True, crop_variants=3, num_workers=workers)
    data = build(source, config, CountingEncoders())
    plan = plan_crops(source.examples, config, SIZE)
    assert (len(data), data.variants, data.shape(0), data.size) == (5, 6, (3, 4, 6), SIZE)
    for index, example in enumerate(source.examples):
        for variant in range(data.variants):
            _, crop, flip = plan.of_row(plan.row(index, variant))
            assert flip == bool(variant % 2)
            pixels = torch.from_numpy(prepare(example.open(), SIZE, crop, flip))[None]
            mean, std = data.latents([index], [variant])
            expected = CountingEncoders().images(pixels)
            assert torch.equal(mean, expected[0])
            assert torch.equal(std, expected[1])


def test_batches_come_in_the_order_asked_for(settle):
    source, config = settle(random_flip=True, center_crop=True)
    data = build(source, config, CountingEncoders())
    assert data.variants == 2
    mean, _ = data.latents([4, 0, 4], [0, 1, 1])
    singles = [data.latents([i], [v])[0][0] for i, v in ((4, 0), (0, 1), (4, 1))]
    assert torch.equal(mean, torch.stack(singles))


def test_a_real_vae_gives_the_same_latents_as_without_a_cache(settle):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    ).eval()

    @torch.no_grad()
    def encode(pixels):
        posterior = vae.encode(pixels).latent_dist
        return posterior.mean, posterior.std

    source, config = settle(random_flip=True, center_crop=True)
    data = build(source, config, CountingEncoders(), images=encode)
    flips = [
        torch.from_numpy(prepare(source.examples[2].open(), SIZE, crop, flip))[None]
        for _, crop, flip in map(plan_crops(source.examples, config, SIZE).of_row, (4, 5))
    ]
    for variant, pixels in enumerate(flips):
        mean, std = encode(pixels)
        cached = data.latents([2], [variant])
        torch.testing.assert_close(cached[0], mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(cached[1], std, rtol=1e-5, atol=1e-6)
    mirrored = data.latents([2], [0])[0].flip(-1)
    assert not torch.allclose(mirrored, data.latents([2], [1])[0], atol=1e-3)


def test_a_flipped_byte_anywhere_in_the_cache_is_found_and_encoded_again(settle):
    source, config = settle(random_flip=True, center_crop=True)
    data = build(source, config, CountingEncoders())
    latents, prompts = ((folder / ROWS, (folder / ROWS).read_bytes()) for folder in data.folders)
    for path, content in (latents, prompts):
        for place in (3, 40, len(content) // 2, len(content) - 1):
            flipped = bytearray(content)
            flipped[place] ^= 0x10
            path.write_bytes(flipped)
            again = CountingEncoders()
            assert not build(source, config, again).reused
            assert bool(again.image_count) == (path == latents[0])
            assert bool(again.texts) == (path == prompts[0])
            assert path.read_bytes() == content
    assert build(source, config, CountingEncoders()).reused


def test_a_family_that_trains_on_the_mode_caches_the_mean_alone(settle):
    source, config = settle(center_crop=True)
    plain = build(source, config, CountingEncoders())
    mean, std = plain.latents([1], [0])
    assert std is not None
    whole = CountingEncoders()
    mode = build(
        source, config, whole, images=lambda x: (whole.images(x)[0], None), image_key={"mode": True}
    )
    again = build(
        source, config, CountingEncoders(), images=lambda x: 1 / 0, image_key={"mode": True}
    )
    for data in (mode, again):
        cached, nothing = data.latents([1], [0])
        assert torch.equal(cached, mean)
        assert nothing is None


def test_prompts_are_encoded_once_each_and_the_empty_one_too(settle):
    source, config = settle()
    encoders = CountingEncoders()
    data = build(source, config, encoders)
    assert encoders.texts == ["", "image 0", "image 1", "image 2"]
    expected = CountingEncoders().prompts(["image 2", "", "image 0"])
    got = data.prompts([2, 1, 3], [0, -1, 5])
    assert got["prompt_embeds"].dtype == torch.bfloat16
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor)
    assert torch.equal(data.prompts([0], [-1])["mask"], torch.tensor([[False, False]]))
    assert data.caption(2, 7) == "image 2"
    assert data.caption(2, -1) == ""


def test_captions_stay_text_when_the_text_encoder_is_trained(settle):
    source, config = settle()
    data = build(source, config, CountingEncoders(), prompts=None)
    assert data.captions[1] == ("image 1",)
    assert len(data.folders) == 1


def test_half_precision_latents_are_stored_unchanged(settle):
    source, config = settle(center_crop=True)
    for dtype in (torch.bfloat16, torch.float16):
        data = build(source, config, CountingEncoders(dtype), image_key={"dtype": str(dtype)})
        mean, _ = data.latents([0], [0])
        assert mean.dtype == torch.float32
        assert torch.equal(mean, mean.to(dtype).float())
        assert (data.folders[0] / "rows.safetensors").stat().st_size < 5 * 2 * 72 * 2 + 300


def test_the_second_build_encodes_nothing(settle):
    source, config = settle(random_flip=True)
    first = build(source, config, CountingEncoders())
    encoders, reported = CountingEncoders(), []
    again = build(source, config, encoders, progress=lambda *counts: reported.append(counts))
    assert (first.reused, again.reused) == (False, True)
    assert (encoders.image_count, encoders.texts) == (0, [])
    assert reported == [(38, 38)]
    for before, after in zip(
        first.latents([0, 3], [1, 5]), again.latents([0, 3], [1, 5]), strict=True
    ):
        assert torch.equal(before, after)


def test_progress_counts_images_and_texts(settle):
    source, config = settle(center_crop=True)
    reported = []
    build(source, config, CountingEncoders(), progress=lambda *counts: reported.append(counts))
    assert reported == [(0, 9), (3, 9), (5, 9), (8, 9), (9, 9)]


def images_encoded(source, config, **changes):
    encoders = CountingEncoders()
    build(source, config, encoders, **changes)
    return encoders.image_count, len(encoders.texts)


def test_whatever_affects_the_bytes_is_in_the_key(settle, photos, configure):
    source, config = settle()
    assert images_encoded(source, config) == (17, 4)
    assert images_encoded(source, config, size=(16, 16)) == (17, 0)
    assert images_encoded(source, config, image_key={"base": "def"}) == (17, 0)
    assert images_encoded(source, config, prompt_key={"base": "def"}) == (0, 4)
    assert images_encoded(source, config, image_key={"vae": "fp16"}) == (17, 0)
    assert images_encoded(source, config, prompt_key={"length": 32}) == (0, 4)
    assert images_encoded(source, configure(folder=photos, crop_variants=2)) == (9, 0)
    assert images_encoded(source, configure(folder=photos, seed=1)) == (17, 0)
    assert images_encoded(source, configure(folder=photos, random_flip=True)) == (34, 0)
    assert images_encoded(source, configure(folder=photos, interpolation="box")) == (17, 0)
    assert images_encoded(source, configure(folder=photos, caption_dropout=0.1)) == (0, 0)
    (photos / "0.txt").write_text("renamed")
    assert images_encoded(*settle()) == (0, 5)
    shutil.copy(photos / "1.png", photos / "0.png")
    assert images_encoded(*settle()) == (17, 0)


def test_index_tells_a_person_what_it_is_made_of(settle):
    source, config = settle()
    folders = build(source, config, CountingEncoders()).folders
    latents, prompts = (json.loads((folder / "index.json").read_text()) for folder in folders)
    assert latents["of"] == "photos"
    assert latents["rows"] == 17
    assert latents["size"] == [16, 24]
    assert latents["base"] == "abc"
    assert prompts["texts"][1] == "image 0"


def test_a_cut_cache_file_is_made_again(settle):
    source, config = settle()
    first = build(source, config, CountingEncoders())
    whole = (first.folders[0] / "rows.safetensors").read_bytes()
    os.truncate(first.folders[0] / "rows.safetensors", len(whole) - 1)
    again = build(source, config, CountingEncoders())
    assert not again.reused
    assert (again.folders[0] / "rows.safetensors").read_bytes() == whole


def test_a_vae_that_overflows_is_stopped_at_once(settle):
    source, config = settle()
    broken = torch.full((3, 4, 4, 6), float("nan"))
    with pytest.raises(ConfigError, match="infinite values in float32"):
        build(source, config, CountingEncoders(), images=lambda pixels: (broken, broken))


def test_too_small_a_disk_is_said_before_the_work(settle, monkeypatch):
    source, config = settle()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 10))
    encoders = CountingEncoders()
    with pytest.raises(DataError, match=r"needs 0\.0 MB in .*latents, but only 0\.0 MB is free"):
        build(source, config, encoders)
    assert encoders.image_count == 3


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(settle, monkeypatch):
    source, config = settle()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="disk with the cache is full") as caught:
            build(source, config, CountingEncoders())
        assert "run the same command again" in caught.value.hint
    assert not build(source, config, CountingEncoders()).reused


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(photos, tmp_path, configure):
    (tmp_path / "file").write_text("")
    config = configure(folder=photos, cache_dir=tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        build(open_source(config), config, CountingEncoders())


def test_errors_of_the_encoder_are_its_own(settle):
    source, config = settle()

    def fail(pixels):
        raise PermissionError(errno.EACCES, "a file of the base")

    with pytest.raises(PermissionError):
        build(source, config, CountingEncoders(), images=fail)


def test_an_image_that_changed_since_it_was_seen_is_named(settle, photos):
    source, config = settle()
    (photos / "4.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"The image 4\.png is empty"):
        build(source, config, CountingEncoders())


def test_no_global_random_numbers_are_used(settle):
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    source, config = settle(random_flip=True)
    build(source, config, CountingEncoders()).latents([0], [0])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
