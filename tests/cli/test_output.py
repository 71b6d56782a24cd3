"""Data goes to stdout in the form that was asked for; everything else goes to stderr."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.lora import random_adapter, save_adapter

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def adapter(bases: Path, hub: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter for bases/epsilon."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(random_adapter(pipe, size=0.05), folder, "bases/epsilon")
    return folder


def test_run_prints_paths_and_overwrites_nothing(
    hublora_cli: Cli, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["run", f"{adapter}:0.5|{adapter}:-0.2", "A cat, sitting!", "--steps", "1"]
    first = hublora_cli(*asked, "--json")
    assert first.status == 0, first.err
    result = json.loads(first.out)
    assert result["files"] == ["a-cat-sitting-0.png"]
    (made,) = result["images"]
    assert (made["path"], made["sampling"]["prompt"]) == (result["files"][0], "A cat, sitting!")
    assert [one["weight"] for one in made["adapters"]] == [0.5, -0.2]
    assert first.out.count("\n") == 1
    content = (tmp_path / "a-cat-sitting-0.png").read_bytes()

    again = hublora_cli(*asked, "-q", "-n", "2", "--grid")
    assert again.out.split() == [
        "a-cat-sitting-0-2.png",
        "a-cat-sitting-1.png",
        "a-cat-sitting-0-2-grid.png",
    ]
    assert (tmp_path / "a-cat-sitting-0.png").read_bytes() == content

    named = hublora_cli(*asked, "-o", "out/x.png", "-n", "2")
    assert named.out.split() == ["out/x-0.png", "out/x-1.png"]
    named = hublora_cli(*asked, "-o", "out/x.png", "-n", "2")
    assert named.out.split() == ["out/x-0-2.png", "out/x-1-2.png"]


def test_an_image_says_how_it_was_made(
    hublora_cli: Cli, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hublora import __version__
    from hublora.filesystem import sha256_of
    from hublora.hub.resolve import inspect_repo

    monkeypatch.chdir(tmp_path)
    asked = ["run", f"{adapter}:0.7", "ein Bär 🐻", "--seed", "5", "--steps", "2"]
    asked += ["--negative-prompt", "blurry", "--guidance", "3", "--scheduler", "EulerDiscrete"]
    (name,) = hublora_cli(*asked, "-o", "a.png", "-q").out.split()
    with Image.open(name) as image:
        facts, readable = json.loads(image.text["hublora"]), image.text["parameters"]
    assert facts["sampling"] == {
        "prompt": "ein Bär 🐻",
        "negative_prompt": "blurry",
        "seed": 5,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "scheduler": "EulerDiscrete",
    }
    (used,) = facts["adapters"]
    assert used["weight"] == 0.7
    assert used["sha256"] == sha256_of(adapter / "pytorch_lora_weights.safetensors")
    assert facts["base"] == "bases/epsilon"
    assert facts["base_revision"] == inspect_repo("bases/epsilon").commit
    assert facts["hublora"] == __version__
    lines = readable.splitlines()
    assert lines[:2] == [f"ein Bär 🐻 <lora:{adapter.name}:0.7>", "Negative prompt: blurry"]
    assert "Steps: 2" in lines[2]
    assert "Seed: 5" in lines[2]
    assert "Size: 64x64" in lines[2]


def test_the_same_seed_generates_the_same_image_in_another_process(
    hublora_cli: Cli, cli: Cli, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["run", str(adapter), "a cat", "--steps", "2", "--seed"]
    here = hublora_cli(*asked, "3", "-o", "here.png")
    assert here.status == 0, here.err
    there = cli(*asked, "3", "-o", "there.png")
    assert there.returncode == 0, there.stderr
    hublora_cli(*asked, "4", "-o", "other.png")
    pixels = [Image.open(tmp_path / f"{name}.png").tobytes() for name in ("here", "there", "other")]
    assert pixels[0] == pixels[1] != pixels[2]


def test_inspect_prints_facts(hublora_cli: Cli, adapter: Path) -> None:
    done = hublora_cli("inspect", str(adapter), str(adapter), "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)["adapters"]
    assert len(found) == 2
    assert found[0]["base_model"] == "bases/epsilon"
    assert found[0]["ranks"] == [3]
    assert not done.err
    assert hublora_cli("inspect", str(adapter), "-q").out.split() == [str(adapter)]
    text = hublora_cli("inspect", str(adapter)).out
    assert "bases/epsilon" in text
    assert "to_out.0" in text


def test_train_and_push_print_one_json_value(
    hublora_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["train", "--pretrained_model_name_or_path=bases/epsilon", "--max_train_steps", "2"]
    asked += ["--dataset_name", "bases/images", "--output_dir", "runs/a"]
    asked += ["--num-validation-images", "1", "--set", "validation.num_inference_steps=1"]
    done = hublora_cli(*asked, "--json")
    assert done.status == 0, done.err
    facts = json.loads(done.out)
    assert facts["folder"] == "runs/a"
    assert facts["repo_id"] is None
    assert "Traceback" not in done.err
    pushed = hublora_cli("push", "runs/a", "me/printed-lora", "--json")
    assert pushed.status == 0, pushed.err
    facts = json.loads(pushed.out)
    assert facts["repo_id"] == "me/printed-lora"
    assert len(facts["commit"]) == 40
    quiet = hublora_cli("push", "runs/a", "me/printed-lora", "-q")
    assert (quiet.out, quiet.err) == ("me/printed-lora\n", "")


def test_a_card_cannot_command_the_terminal(
    hublora_cli: Cli, adapter: Path, tmp_path: Path
) -> None:
    hostile = Path(shutil.copytree(adapter, tmp_path / "hostile"))
    word = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eevil"
    card = {"license": word, "instance_prompt": word, "base_model": "bases/epsilon"}
    front = json.dumps(card)  # JSON is YAML
    (hostile / "README.md").write_text(f"---\n{front}\n---\n")
    for flags in ((), ("--json",), ("-q",)):
        done = hublora_cli("inspect", str(hostile), *flags)
        assert done.status == 0, done.err
        assert not set(done.out + done.err) & set("\x1b\x07\x9b\u202e")
    assert "evil" in hublora_cli("inspect", str(hostile)).out
