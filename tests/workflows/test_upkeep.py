"""What a composition pinned may move; it is told, shown and pinned anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, hf_hub_download
from PIL import Image


def test_what_moved_is_told_shown_and_pinned_anew(
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
    done = hublora_cli("outdated", "me/drift", "--steps=1", "--prompt=a hill", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
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


def test_an_adapter_is_no_composition(publish: Callable[..., str], hublora_cli: Any) -> None:
    done = hublora_cli("outdated", publish("single", 1))
    assert done.status == 1
    assert "is one adapter, not a composition" in done.err
