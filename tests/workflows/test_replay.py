"""An image is reproduced from its own metadata, and drift is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hublora.generation.metadata import read_image, save_image

RUN = ["a (red:1.3) <2>", "--steps=3", "--guidance=3", "--seed=5", "--negative-prompt=blue"]


@pytest.fixture
def png(publish: Callable[..., str], hublora_cli: Any, tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    refs = [publish("again-a", 1), f"{publish('again-b', 2, trigger='sks')}:0.5"]
    mixed = ["--compose=switch", "--weight=1=0.2..0.9", "--scheduler=EulerDiscrete"]
    done = hublora_cli("run", *refs, *RUN, *mixed, "-o", "first.png")
    assert done.status == 0, done.err
    return tmp_path / "first.png"


def test_the_same_image_comes_again(png: Path, hublora_cli: Any) -> None:
    done = hublora_cli("replay", str(png), "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert (found["difference"], found["drift"]) == (0.0, [])
    one, other = read_image(png), read_image(Path(found["file"]))
    assert one == other
    other = hublora_cli("replay", str(png), "--seed=6", "-o", "other.png", "--json")
    assert json.loads(other.out)["difference"] is None
    assert read_image(png.with_name("other.png"))["sampling"]["seed"] == 6


def test_drift_is_reported(png: Path, hublora_cli: Any) -> None:
    facts = read_image(png)
    facts["versions"]["diffusers"] = "0.1.0"
    facts["adapters"][0]["ref"] = facts["adapters"][0]["ref"].replace(
        facts["adapters"][0]["ref"].split("@")[1][:40], "0" * 40
    )
    with Image.open(png) as image:
        save_image(image.copy(), png, facts)
    done = hublora_cli("replay", str(png), "--json")
    assert done.status == 0, done.err
    assert "diffusers was 0.1.0 and is" in done.err
    assert "me/again-a has no commit 00000000 any more; main has the same file." in done.err
    assert len(json.loads(done.out)["drift"]) == 2


def test_other_tools_read_the_parameters(png: Path) -> None:
    with Image.open(png) as image:
        lines = image.text["parameters"].split("\n")
    assert lines[0] == "a (red:1.3) sks <lora:again-a:0.2..0.9> <lora:again-b:0.5>"
    assert lines[1] == "Negative prompt: blue"
    assert lines[2].startswith("Steps: 3, Sampler: EulerDiscrete, CFG scale: 3.0, Seed: 5, ")
    assert 'Lora hashes: "again-a: ' in lines[2]


def test_a_local_adapter_is_found_by_what_it_holds(
    bases: Path, hublora_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline

    from tests.lora import random_adapter, save_adapter

    monkeypatch.chdir(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    save_adapter(random_adapter(pipe, size=0.1), tmp_path / "mine", "bases/epsilon")
    hublora_cli("run", "./mine", "a", "--steps=1", "-o", "a.png")
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    done = hublora_cli("replay", "a.png")
    assert done.status == 1
    assert "'mine' (sha256" in done.err
    assert "--adapter FILE" in done.err
    done = hublora_cli("replay", "a.png", "--adapter=elsewhere")
    assert done.status == 0, done.err
    assert "the same image" in done.out


def test_what_says_nothing_cannot_be_replayed(hublora_cli: Any, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no image")
    save_image(Image.new("RGB", (8, 8)), tmp_path / "odd.png", {"base": 3})
    for name in ("plain", "text", "odd"):
        done = hublora_cli("replay", str(tmp_path / f"{name}.png"))
        assert done.status == 1
        assert "Error: " in done.err
