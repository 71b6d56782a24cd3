"""The cache: what a training leaves there is listed, and what is removed is made again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import hublora
from hublora.workflows.cache import KINDS, list_cache, remove_cached


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own after one DreamBooth training with class images and masks."""
    root = tmp_path / "cache"
    monkeypatch.setenv("HUBLORA_CACHE", str(root))
    config = hublora.TrainingConfig.from_settings(
        {
            "base.model": "bases/epsilon",
            "data.dataset": "bases/images",
            "method": "dreambooth",
            "dreambooth.instance_prompt": "a photo of sks star",
            "dreambooth.class_prompt": "a photo of a star",
            "dreambooth.prior_preservation": True,
            "dreambooth.num_class_images": 1,
            "schedule.max_train_steps": 1,
            "validation.num_images": 1,
            "output_dir": tmp_path / "run",
        }
    )
    hublora.train(config)
    return root


def test_every_kind_that_a_training_writes_is_listed(cached: Path) -> None:
    written = {folder.name for folder in cached.iterdir() if folder.is_dir()}
    assert {"latents", "prompts", "class"} <= written <= set(KINDS)
    entries = list_cache()
    assert {entry.kind for entry in entries} == written
    files = [path for path in cached.rglob("*") if path.is_file()]
    assert sum(entry.size for entry in entries) == sum(path.stat().st_size for path in files)
    assert [entry.size for entry in entries] == sorted((e.size for e in entries), reverse=True)


def test_what_is_removed_is_gone_and_nothing_else(cached: Path) -> None:
    mine = cached / "notes.txt"
    mine.write_text("a person's")
    latents = [entry for entry in list_cache() if entry.kind == "latents"]
    freed = remove_cached(latents)
    assert freed == sum(entry.size for entry in latents) > 0
    assert mine.read_text() == "a person's"
    assert {path.suffix for path in (cached / "latents").iterdir()} <= {".lock"}
    assert not [entry for entry in list_cache() if entry.kind == "latents"]
    assert {entry.kind for entry in list_cache()} >= {"prompts", "class"}


def test_the_command_line_removes_by_age_kind_and_key(
    cached: Path, hublora_cli: Any, tmp_path: Path
) -> None:
    listed = json.loads(hublora_cli("cache", "ls", "--json").out)
    assert {entry["kind"] for entry in listed} >= {"latents", "prompts", "class"}
    for path in (cached / "prompts").rglob("*"):
        os.utime(path, (time.time() - 10 * 86_400,) * 2)
    old = json.loads(hublora_cli("cache", "rm", "--older-than", "9", "--json").out)
    assert {Path(path).parent.name for path in old["removed"]} == {"prompts"}
    key = next(entry["key"] for entry in listed if entry["kind"] == "class")
    assert hublora_cli("cache", "rm", key[:12]).status == 0
    assert not [entry for entry in list_cache() if entry.kind == "class"]
    for wrong, status in ((["rm"], 2), (["rm", "zzz"], 1), (["rm", "--kind", "x"], 2)):
        assert hublora_cli("cache", *wrong).status == status
    assert hublora_cli("cache", "rm", "--all").status == 0
    assert list_cache() == []
