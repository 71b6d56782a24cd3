"""Several resolutions in one training: each image at each that it is large enough for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hublora
from hublora.cli.train_plan import plan_lines
from hublora.errors import ConfigError
from hublora.training.losses import _sample
from hublora.training.session import Session
from hublora.workflows.train.dry_run import dry_run, trial
from hublora.workflows.train.prepare import prepare_run
from tests.data.images import noise_image
from tests.flow_pipelines import FLOW_PIPELINES

SIDES = (100, 64, 40, 20, 64)  # two are too small for 64, and one is upscaled for 32


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of captioned images of several sizes."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, side in enumerate(SIDES):
        noise_image(number, side, side).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"image {number}")
    return folder


@pytest.fixture
def several(mixed: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data__dataset": None,
        "data__folder": mixed,
        "data__cache_dir": tmp_path / "cache",
        "data__resolution": "32,64",
        "data__crop_variants": 1,
    }


def test_an_image_is_an_item_at_each_resolution_that_it_is_large_enough_for(
    start: Callable[..., Session], several: dict[str, Any], tmp_path: Path
) -> None:
    data = start(**several).data
    assert data.image_of == [0, 1, 2, 3, 4, 0, 1, 4]
    assert data.sides_of == [32] * 5 + [64] * 3
    assert (data.sizes, data.size) == ([(32, 32), (64, 64)], (64, 64))
    assert data.captions[5] == data.captions[0] == ("image 0",)
    for index, side in enumerate(data.sides_of):
        assert data.shape(index)[1:] == (side // 4, side // 4)
    alone = start(**{**several, "data__resolution": 32}).data
    assert alone.reused, "the smaller resolution is cached as if it were alone"
    assert torch.equal(alone.latents([3], [0])[0], data.latents([3], [0])[0])
    large = start(**{**several, "data__resolution": 64, "data__cache_dir": tmp_path / "other"}).data
    for index, image in ((5, 0), (7, 4)):
        assert torch.equal(large.latents([image], [0])[0], data.latents([index], [0])[0])


def test_each_is_trained_equally_often_in_batches_of_one_shape(
    start: Callable[..., Session], several: dict[str, Any]
) -> None:
    session = start(**several, train_batch_size=2)
    (stream,) = session.streams
    assert stream.order is not None
    batches = [stream.order.images(range(first, first + 2)) for first in range(0, 160, 2)]
    assert all(len({session.data.sides_of[index] for index in batch}) == 1 for batch in batches)
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(8), 20)
    assert session.train_images == 5


def test_an_image_is_held_out_at_all_of_its_resolutions(
    start: Callable[..., Session], several: dict[str, Any]
) -> None:
    session = start(**several, holdout__images=2, holdout__timesteps=1)
    images = session.data.image_of
    held_out = {images[index] for index in session.held_out_indices}
    assert len(held_out) == session.held_out_images == 2
    assert held_out.isdisjoint(images[index] for index in session.train_indices)
    assert len(session.train_indices) + len(session.held_out_indices) == 8


def test_class_images_are_trained_at_every_resolution(
    start: Callable[..., Session], several: dict[str, Any]
) -> None:
    """The last image counts as one of the class here."""
    session = start(class_images=1, **several)
    own, of_class = session.streams
    assert {session.data.image_of[index] for index in own.images} == {0, 1, 2, 3}
    assert [session.data.sides_of[index] for index in of_class.images] == [32, 64]


def test_the_whole_line_and_resuming_in_the_same_bytes(
    settings: Callable[..., Any], several: dict[str, Any], tmp_path: Path
) -> None:
    common = {
        **several,
        "schedule__max_train_steps": None,
        "schedule__num_train_epochs": 2,
        "train_batch_size": 2,
        "checkpoint__steps": 3,
        "validation__num_images": 1,
        "validation__num_inference_steps": 1,
    }
    notes: list[str] = []
    whole = hublora.train(
        settings(**common), callback=lambda event: notes.append(getattr(event, "text", ""))
    )
    assert "Images by resolution: 5 at 32, 3 at 64; the others are too small" in notes
    assert any("1 of 5 images is upscaled" in note for note in notes)
    assert any(note.startswith("Training ") and "on 5 images for 8 steps" in note for note in notes)
    card = (whole.folder / "README.md").read_text()
    assert "| resolution | 32×32, 64×64 |" in card
    part = tmp_path / "part" / whole.folder.name
    shutil.copytree(whole.folder, part)
    for name in ("checkpoint-8", "checkpoint-6"):
        shutil.rmtree(part / name)
    file = "pytorch_lora_weights.safetensors"
    (part / file).unlink()
    again = hublora.train(settings(**common, output_dir=part), resume="latest")
    assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def test_a_dry_run_and_fit_measure_the_largest(
    settings: Callable[..., Any], several: dict[str, Any]
) -> None:
    config = settings(**several, schedule__max_train_steps=None, schedule__num_train_epochs=3)
    plan = dry_run(config, callback=lambda event: None)
    assert plan.steps == 3 * 8
    assert plan.images == 5
    assert plan.size == (64, 64)
    assert plan.buckets == {"32×32": 5, "64×64": 3}
    assert any("32 and 64 pixels, measured at 64" in line for line in plan_lines(plan))
    ready = prepare_run(config, None, lambda event: None)
    with trial(ready, 2) as (session, _):
        assert session.data.sizes == [(64, 64)]


def test_noise_is_shifted_by_the_resolution_of_each_batch(
    start: Callable[..., Session], several: dict[str, Any], tmp_path: Path
) -> None:
    FLOW_PIPELINES["flux-dev"]().save_pretrained(tmp_path / "base")
    session = start(**several, base__model=str(tmp_path / "base"), objective__shift="resolution")
    (stream,) = session.streams
    assert stream.order is not None
    seen = {}
    for number in range(8):
        samples = _sample(session, stream, [number], torch.Generator())
        seen[session.data.sides_of[samples.indices[0]]] = number, samples.levels
    assert set(seen) == {32, 64}
    for side, (number, levels) in seen.items():
        from hublora.training.rng import choose

        uniforms = choose(session.config.seed, [number], 8, 1, 0.0).uniforms
        expected = {
            other: session.parameterization.levels(uniforms, (16, other // 8, other // 8))
            for other in seen
        }
        assert torch.equal(levels, expected[side])
        assert not torch.equal(expected[32], expected[64])


def test_buckets_of_each_resolution(start: Callable[..., Session], tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    for number, size in enumerate([(128, 64), (64, 64), (64, 32)]):
        noise_image(number, *size).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"image {number}")
    data = start(
        data__dataset=None,
        data__folder=folder,
        data__resolution=[64, 32],
        data__aspect_buckets=True,
    ).data
    assert data.image_of == [0, 1, 2, 0, 1]
    sizes = [data.bucket_sizes[number] for number in data.bucket_of]
    assert sizes[:3] == [(24, 40), (32, 32), (24, 40)]
    assert sizes[4] == (64, 64)
    assert 0.9 * 64 * 64 <= sizes[3][0] * sizes[3][1] <= 64 * 64


@pytest.mark.parametrize(
    ("given", "meant"),
    [("512", 512), ("1024, 512", [512, 1024]), ([64, 32, 64], [32, 64]), ("512,512", 512)],
)
def test_one_or_several_sides_are_read(
    given: Any, meant: Any, settings: Callable[..., Any]
) -> None:
    assert settings(data__resolution=given).data.resolution == meant


@pytest.mark.parametrize("given", ["big", "512,", "4", [512, 0], [], True, 512.5, "²"])
def test_what_is_no_resolution_is_refused(given: Any, settings: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="resolution must be one or several sides of at least 8"):
        settings(data__resolution=given)
