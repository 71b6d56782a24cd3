"""Newer commits of what a composition pins are reported, compared and pinned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, hf_hub_download
from PIL import Image

from hublora.localhub import import_folder


def test_newer_commits_are_reported_compared_and_pinned(
    publish: Callable[..., str],
    hublora_cli: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    still, moving = publish("still", 1), publish("moving", 2)
    done = hublora_cli("compose", still, moving, "--push-to-hub=me/drift", "--steps=1")
    assert done.status == 0, done.err
    before = HfApi().repo_info("me/drift").sha

    done = hublora_cli("outdated", "me/drift", "--json")
    assert [part["moved"] for part in json.loads(done.out)["parts"]] == [False, False]
    assert json.loads(hublora_cli("update", "me/drift", "--json").out) == {"updated": False}

    publish("moving", 3)
    flags = ["--steps=1", "--prompt=a hill", "--sheet=changes.png"]
    done = hublora_cli("outdated", "me/drift", *flags, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["sheet"] == "changes.png"
    assert [part["changed"] for part in found["parts"]] == [False, True]
    with Image.open(tmp_path / found["sheet"]) as sheet:
        assert sheet.width > 2 * 64
    assert HfApi().repo_info("me/drift").sha == before

    done = hublora_cli("update", "me/drift", "--steps=1", "-q")
    assert done.status == 0, done.err
    lock = json.loads(Path(hf_hub_download("me/drift", "hublora.lock.json")).read_text())
    assert lock["parts"][1]["commit"] == HfApi().repo_info(moving).sha
    assert "revision" not in lock["parts"][1]
    assert not any(p["moved"] for p in json.loads(
        hublora_cli("outdated", "me/drift", "--json").out
    )["parts"])  # fmt: skip


def test_a_newer_commit_of_the_base_is_reported_and_pinned_when_asked(
    publish: Callable[..., str], hublora_cli: Any, bases: Path, hub_data: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(bases / "epsilon", tmp_path / "base")
    import_folder(hub_data, "me/moving-base", copy)
    flags = ["--base=me/moving-base", "--push-to-hub=me/on-moving", "--no-gallery"]
    done = hublora_cli("compose", publish("on-base", 1), *flags)
    assert done.status == 0, done.err

    def base() -> tuple[bool, bool]:
        done = hublora_cli("outdated", "me/on-moving", "--json")
        assert done.status == 0, done.err
        found = json.loads(done.out)["base"]
        return found["moved"], found["changed"]

    assert base() == (False, False)
    (copy / "README.md").write_text("---\nlicense: mit\n---\nAnother word.\n")
    import_folder(hub_data, "me/moving-base", copy)
    assert base() == (True, False)
    scheduler = copy / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    import_folder(hub_data, "me/moving-base", copy)
    assert base() == (True, True)
    assert "another file  (base)" in hublora_cli("outdated", "me/on-moving").out
    assert json.loads(hublora_cli("update", "me/on-moving", "--json").out) == {"updated": False}
    assert hublora_cli("update", "me/on-moving", "--base", "--steps=1", "-q").status == 0
    assert base() == (False, False)


def test_an_adapter_is_no_composition(publish: Callable[..., str], hublora_cli: Any) -> None:
    done = hublora_cli("outdated", publish("single", 1))
    assert done.status == 1
    assert "is one adapter, not a composition" in done.err
