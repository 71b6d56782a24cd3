"""Trainings that share a cache end in the bytes of trainings with an empty one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hublora
from hublora.data.row_file import ROWS
from hublora.errors import ConfigError
from hublora.filesystem import sha256_of
from hublora.resolution.base_contents import remembered_sha256
from hublora.training.config.training_config import TrainingConfig
from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.session import Session
from hublora.workflows.cache import list_cache
from hublora.workflows.train.dry_run import dry_run
from tests.data.images import noise_image

Start = Callable[..., Session]
BUCKETS = {"data__aspect_buckets": True, "data__crop_variants": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "centre": {"data__center_crop": True},
    "one random crop": {"data__crop_variants": 1},
    "one random crop of another seed": {"data__crop_variants": 1, "seed": 7},
    "buckets": BUCKETS,
    "buckets of another seed": {**BUCKETS, "seed": 1},
    "flips": {"data__center_crop": True, "data__random_flip": True},
    "interpolation": {"data__center_crop": True, "data__interpolation": "nearest"},
    "resolution": {"data__center_crop": True, "data__resolution": 48},
    "captions": {"data__center_crop": True, "data__folder": "other captions"},
    "text encoder": {"data__center_crop": True, "adapter__text_encoder": True},
    "another base of this name": {"data__center_crop": True, "base__model": "b/base"},
    "another VAE": {"data__center_crop": True, "base__model": "vae/base"},
    "another text encoder": {"data__center_crop": True, "base__model": "text_encoder/base"},
}


def reweigh(file: Path) -> None:
    """Change all weights in a file, and nothing of its size, name or times."""
    times = file.stat()
    tensors = load_file(file)
    scaled = {
        name: tensor * 1.5 if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    save_file(scaled, file, {"format": "pt"})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)


def weights(folder: Path, component: str) -> Path:
    return next((folder / component).glob("*.safetensors"))


@pytest.fixture
def place(tmp_path: Path, bases: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with bases of one name, and the same images under two sets of captions."""
    for owner in ("a", "b", "vae", "text_encoder"):
        shutil.copytree(bases / "epsilon", tmp_path / owner / "base")
    for component in ("vae", "text_encoder", "unet"):
        reweigh(weights(tmp_path / "b" / "base", component))
    for component in ("vae", "text_encoder"):
        reweigh(weights(tmp_path / component / "base", component))
    for folder, caption in (("images", "a star"), ("other captions", "a moon")):
        for index, size in enumerate(((100, 70), (70, 100), (90, 70))):
            path = tmp_path / folder / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            noise_image(index, *size).save(path)
            path.with_suffix(".txt").write_text(f"{caption} {index}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome(start: Start, cache: Path, **changes: Any) -> tuple[Any, ...]:
    """Train two steps, return the losses, the learned tensors and what the cache had to give."""
    keys: dict[str, Any] = {
        "base__model": "a/base",
        "data__dataset": None,
        "data__folder": "images",
        "data__cache_dir": cache,
        "schedule__max_train_steps": 2,
        **changes,
    }
    session = start(**keys)
    losses = [event.loss.item() for event in train(session) if isinstance(event, StepDone)]
    learned = {
        f"{component} {name}": layer.up.numpy().tobytes()
        for component, layers in session.adapter().layers.items()
        for name, layer in layers.items()
    }
    rows = [(folder / ROWS).read_bytes() for folder in session.data.folders]
    return losses, learned, rows


@pytest.mark.slow
def test_any_training_after_any_other_is_that_of_an_empty_cache(start: Start, place: Path) -> None:
    alone = {
        name: outcome(start, place / "caches" / name, **changes)
        for name, changes in SETTINGS.items()
    }
    assert len({str(losses) for losses, _, _ in alone.values()}) == len(alone), (
        "each of the settings matters"
    )
    for name, changes in SETTINGS.items():  # two of one key show in whichever is the second
        assert outcome(start, place / "shared", **changes) == alone[name], name


def test_a_base_that_was_replaced_in_place_is_another_one(start: Start, place: Path) -> None:
    cache = place / "cache"
    before = outcome(start, cache)
    for component in ("vae", "text_encoder"):
        reweigh(weights(place / "a" / "base", component))
    after = outcome(start, cache)
    assert after == outcome(start, place / "empty cache")
    assert after[2] != before[2]


def test_the_dry_run_counts_only_latents_of_this_base_and_these_crops(place: Path) -> None:
    keys = {
        "data.folder": "images",
        "data.cache_dir": place / "cache",
        "data.center_crop": True,
        "schedule.max_train_steps": 1,
        "validation.num_images": 1,
    }

    def seconds(model: str, **changes: Any) -> float:
        settings = {**keys, "base.model": model, **changes}
        return dry_run(TrainingConfig.from_settings(settings)).encode_seconds

    config = TrainingConfig.from_settings({**keys, "base.model": "a/base"})
    hublora.train(config)
    assert seconds("a/base") == 0
    assert seconds("b/base") > 0
    assert seconds("a/base", **{"data.interpolation": "nearest"}) > 0


def test_class_images_are_those_of_the_base_that_drew_them(place: Path) -> None:
    from hublora.refs import BaseRef
    from hublora.resolution.base import download_base, resolve_base
    from hublora.workflows.train.class_images import plan_class_images

    folders = set()
    for owner in ("a", "b", "vae", "text_encoder"):
        keys = {
            "base.model": f"{owner}/base",
            "data.folder": "images",
            "method": "dreambooth",
            "dreambooth.instance_prompt": "a sks cat",
            "dreambooth.class_prompt": "a cat",
            "dreambooth.prior_preservation": True,
        }
        config = TrainingConfig.from_settings(keys)
        base = download_base(resolve_base(BaseRef.parse(config.base.model)))
        folders.add(plan_class_images(config, base, base.load(torch.float32))[1])
    assert len(folders) == 4


def test_a_checkpoint_does_not_go_on_with_another_base_of_its_name(place: Path) -> None:
    def config(model: str) -> TrainingConfig:
        return TrainingConfig.from_settings(
            {
                "base.model": model,
                "data.folder": "images",
                "output_dir": place / "run",
                "schedule.max_train_steps": 2,
                "checkpoint.steps": 1,
                "validation.num_images": 1,
            }
        )

    first = str(hublora.train(config("a/base")).folder / "checkpoint-1")
    with pytest.raises(ConfigError, match="another base: the folder named 'base'"):
        hublora.train(config("b/base"), resume=first)
    (place / "moved").mkdir()
    shutil.move(place / "a" / "base", place / "moved" / "base")
    assert hublora.train(config("moved/base"), resume=first).steps == 1


def test_a_large_file_is_hashed_again_when_it_may_have_changed(place: Path) -> None:
    file = place / "weights.safetensors"
    file.write_bytes(bytes(2 << 20))
    later = time.time() + 60
    first = remembered_sha256(file, later)
    assert first == sha256_of(file) == remembered_sha256(file, later)
    times = file.stat()
    file.write_bytes(bytes(2 << 20)[:-1] + b"x")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert remembered_sha256(file, later) == sha256_of(file) != first


def test_the_hash_of_a_file_that_is_still_being_written_is_not_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBLORA_CACHE", str(place / "cache"))
    file = place / "weights.safetensors"
    file.write_bytes(bytes(2 << 20))
    remembered_sha256(file, time.time())
    assert list_cache() == []
    remembered_sha256(file, time.time() + 60)
    assert [entry.kind for entry in list_cache()] == ["base_hashes"]
