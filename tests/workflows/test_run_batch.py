"""Many prompts, labelled sheets, and folders that are gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hublora.generation.metadata import read_image


@pytest.fixture
def adapter(publish: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return publish("batch", 1, trigger="sks")


def lines(done: Any) -> list[dict[str, Any]]:
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_sheet_of_weights_and_seeds(adapter: str, hublora_cli: Any, tmp_path: Path) -> None:
    axes = ["--rows=weight=0..1:3", "--columns=seed=2", "--seed=5"]
    found = lines(
        hublora_cli("run", adapter, "a sks hill", *axes, "--steps=1", "--json", "-o", "s")
    )
    images, sheet = found[:-1], found[-1]
    facts = [read_image(tmp_path / one["path"]) for one in images]
    assert [one["made"] for one in images] == [
        {"path": p["path"], **f} for p, f in zip(images, facts, strict=True)
    ]
    assert [(f["adapters"][0]["weight"], f["sampling"]["seed"]) for f in facts] == [
        (weight, seed) for weight in (0, 0.5, 1) for seed in (5, 6)
    ]
    with Image.open(tmp_path / sheet["path"]) as image:
        assert image.width < image.height
    # An image of the sheet equals that of a run with its weight and seed.
    alone = hublora_cli(
        "run", f"{adapter}:0.5", "a sks hill", "--seed=6", "--steps=1", "-o", "alone.png"
    )
    assert alone.status == 0, alone.err
    with Image.open("alone.png") as one, Image.open(images[3]["path"]) as other:
        assert one.tobytes() == other.tobytes()


def test_a_folder_is_gone_on_with(adapter: str, hublora_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a hill\n\na red star\na hill\n")
    command = ["run", adapter, "--prompts=prompts.txt", "-n", "2", "--steps=1", "-o", "p", "--json"]
    first = lines(hublora_cli(*command))
    assert [one["skipped"] for one in first] == [False] * 4
    (tmp_path / first[0]["path"]).unlink()
    damaged = tmp_path / first[1]["path"]
    damaged.write_bytes(damaged.read_bytes()[:40])
    again = lines(hublora_cli(*command))
    assert [one["skipped"] for one in again] == [False, False, True, True]
    assert [one["path"] for one in again] == [one["path"] for one in first]
    assert [one["skipped"] for one in lines(hublora_cli(*command, "--guidance=3"))] == [False] * 4


def test_a_wrong_axis_is_refused_before_anything_is_generated(
    adapter: str, hublora_cli: Any, tmp_path: Path
) -> None:
    for axis in ("weight.2=0,1", "scheduler=DDIM,Best", "steps=1,5000", "mood=good"):
        done = hublora_cli("run", adapter, "a", f"--rows={axis}", "-o", "s")
        assert done.status == 1
        assert "Traceback" not in done.err
    assert not (tmp_path / "s").exists()


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(
    adapter: str, hublora_cli: Any, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfa sks hill\r\na sks star\r\n")
    command = ["run", adapter, "--prompts=prompts.txt", "--steps=1", "-o", "p", "--json"]
    assert [one["prompt"] for one in lines(hublora_cli(*command))] == ["a sks hill", "a sks star"]
