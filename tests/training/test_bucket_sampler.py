"""Batches are of one shape, every image is sampled equally often, and a resumed run goes on so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from hublora.errors import ConfigError
from hublora.training.bucket_sampler import BucketSampler
from hublora.training.checkpoint import check_checkpoint, load_checkpoint, save_checkpoint
from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.losses import training_losses
from hublora.training.rng import choose
from hublora.training.session import Session
from tests.tiny import save_images

BUCKETS = [list(range(7)), [7], [8, 9, 10]]


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
def test_batches_are_of_one_shape_and_images_are_sampled_equally_often(batch: int) -> None:
    order = BucketSampler(3, BUCKETS, batch)
    indices = order.images(range(11 * 20 * batch))
    shape = {image: number for number, bucket in enumerate(BUCKETS) for image in bucket}
    for start in range(0, len(indices), batch):
        assert len({shape[image] for image in indices[start : start + batch]}) == 1
    counts = Counter(indices)
    assert counts.keys() == shape.keys()
    assert max(counts.values()) - min(counts.values()) <= batch
    assert sum(counts.values()) == 20 * batch * 11


def test_without_batches_an_epoch_has_every_image_once() -> None:
    order = BucketSampler(0, BUCKETS, 1)
    epochs = [order.images(range(start, start + 11)) for start in (0, 11, 22)]
    assert all(sorted(one) == list(range(11)) for one in epochs)
    assert len({tuple(one) for one in epochs}) == 3, "each epoch has an order of its own"
    shapes = [next(len(bucket) for bucket in BUCKETS if n in bucket) for n in epochs[0]]
    assert shapes != sorted(shapes), "shapes are mixed"


def test_the_order_is_a_function_of_seed_and_number() -> None:
    forward = BucketSampler(1, BUCKETS, 4).images(range(200))
    order = BucketSampler(1, BUCKETS, 4)
    assert [order.images([n])[0] for n in reversed(range(200))] == forward[::-1]
    assert BucketSampler(2, BUCKETS, 4).images(range(200)) != forward


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Seven captioned images of three shapes."""
    folder = save_images(tmp_path / "album", count=7)
    for number, size in {1: (96, 40), 3: (40, 96), 5: (100, 42)}.items():
        image = Image.open(folder / f"{number}.png").resize(size)
        image.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def given(album: Path) -> dict[str, object]:
    return {"data__dataset": None, "data__folder": album, "data__aspect_buckets": True}


def advance(session: Session, to: int) -> list[float]:
    losses = []
    for event in train(session):
        if isinstance(event, StepDone):
            losses.append(event.loss.item())
            if event.step == to:
                break
    return losses


def test_a_training_stopped_in_the_middle_of_an_epoch_is_the_uninterrupted_one(
    start, given
) -> None:
    """With accumulation, an average and held-out images; resumed with smaller batches."""
    given |= {
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "adapter__ema_decay": 0.9,
        "data__random_flip": True,
        "holdout__images": 2,
        "holdout__steps": 2,
        "schedule__max_train_steps": 6,
        "optimizer__learning_rate": 1e-2,
    }
    whole = start(**given)
    losses = advance(whole, 4)
    folder = save_checkpoint(whole)
    losses += advance(whole, 6)
    resumed = start(**given)
    check_checkpoint(folder, resumed.config, resumed.inputs, resumed.accelerator)
    load_checkpoint(resumed, folder)
    assert advance(resumed, 6) == losses[4:]
    assert whole.measures == resumed.measures
    for ours, theirs in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(ours, theirs)

    split = {"train_batch_size": 1, "gradient_accumulation_steps": 4, "data__bucket_batch": 2}
    smaller = start(**{**given, **split})
    load_checkpoint(smaller, folder)
    assert advance(smaller, 6) == pytest.approx(losses[4:], rel=1e-5)


def test_batches_of_every_shape_train_on_both_families(start, given) -> None:
    for base in ("epsilon", "xl"):
        session = start(**given, base__model=f"bases/{base}", train_batch_size=2)
        shapes = set()
        for first in range(0, 14, 2):
            losses, _ = training_losses(session, range(first, first + 2), torch.Generator())
            assert losses.isfinite().all()
            shapes.add(session.data.shape(session.streams[0].order.images([first])[0]))
        assert shapes == {(4, 16, 16), (4, 10, 24), (4, 24, 10)}


def test_a_resumed_training_keeps_the_batches_that_it_began_with(start, settings, given) -> None:
    from hublora.workflows.train.image_sizes import resolve_bucket_batch

    config = resolve_bucket_batch(settings(**given, train_batch_size=4), None)
    assert config.data.bucket_batch == 4
    folder = save_checkpoint(start(**given, train_batch_size=4, data__bucket_batch=4))
    halved = settings(**given, train_batch_size=2, gradient_accumulation_steps=2)
    assert resolve_bucket_batch(halved, folder).data.bucket_batch == 4
    with pytest.raises(ConfigError, match="train_batch_size=3 does not divide"):
        resolve_bucket_batch(settings(**given, train_batch_size=3), folder)


def test_repeated_images_are_sampled_as_often(start, album: Path) -> None:
    for number, folder in enumerate(("3_a", "3_a", "1_b", "1_b")):
        (album / folder).mkdir(exist_ok=True)
        (album / f"{number}.png").rename(album / folder / f"{number}.png")
    (album / "metadata.jsonl").unlink()
    for number in (4, 5, 6):
        (album / f"{number}.png").unlink()
    given = {"data__dataset": None, "data__folder": album, "schedule__max_train_steps": None}
    for bucketed in (False, True):
        session = start(**given, data__aspect_buckets=bucketed, schedule__num_train_epochs=3)
        assert session.total_steps == 3 * 8
        numbers = range(8, 16)
        if session.streams[0].order is not None:
            indices = session.streams[0].order.images(numbers)
        else:
            choices = choose(0, numbers, len(session.train_indices), 1, 0)
            indices = [session.train_indices[index] for index in choices.indices]
        assert sorted(indices) == [0, 1, *[2] * 3, *[3] * 3]
