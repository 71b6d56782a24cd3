"""Bad input is one sentence that says what mends it, exit 1, and no traceback."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hublora.localhub import create_token
from tests.lora import random_adapter, save_adapter

Cli = Callable[..., Any]
TRAIN = ["train", "--base", "bases/epsilon", "--dataset", "bases/images", "--max-train-steps=1"]
DOWN, UP = "unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight"


@pytest.fixture(scope="module")
def files(bases: Path, hub: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters and images that are wrong in one way each."""
    from diffusers import StableDiffusionPipeline

    folder = tmp_path_factory.mktemp("wrong")
    wide = StableDiffusionPipeline.from_pretrained(bases / "wide", safety_checker=None)
    save_adapter(random_adapter(wide), folder / "wide", "bases/wide")
    right = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    file = save_adapter(random_adapter(right), folder / "right", "bases/epsilon")
    (folder / "short.safetensors").write_bytes(file.read_bytes()[:-7])
    (folder / "empty.safetensors").touch()
    torch.save({DOWN: torch.ones(1)}, folder / "pickle.safetensors")
    (folder / "old.ckpt").write_bytes(b"\x80\x02")
    bad = {DOWN: torch.full((1, 1), float("nan")), UP: torch.ones(1, 1)}
    save_file(bad, folder / "nan.safetensors")
    other = {"transformer.blocks.0.to_q.lora_A.weight": torch.ones(1, 4)}
    other |= {"transformer.blocks.0.to_q.lora_B.weight": torch.ones(4, 1)}
    save_file(other, folder / "flux.safetensors")
    (folder / "no-images").mkdir()
    (folder / "one-broken").mkdir()
    Image.new("RGB", (64, 64)).save(folder / "one-broken" / "good.png")
    (folder / "one-broken" / "good.txt").write_text("a star")
    (folder / "one-broken" / "broken.png").touch()
    (folder / "one-broken" / "broken.txt").write_text("a star")
    (folder / "taken").touch()
    return folder


BASE = ["--base", "bases/epsilon"]
FOLDER = [*TRAIN[:3], "--max-train-steps=1", "--folder"]

# What is typed -> what the sentence must hold. {files} is the folder above.
SENTENCES: dict[str, tuple[list[str], list[str]]] = {
    "ref": (["run", "me/x:strong", "a"], ["'strong'", "not a number", "me/x:0.8"]),
    "repo": (["run", "me/nowhere", "a"], ["no model me/nowhere", "hf auth login"]),
    "revision": (["run", "bases/epsilon@v9", "a"], ["no revision 'v9'"]),
    "file": (["run", "bases/epsilon/x.safetensors", "a"], ["no file 'x.safetensors'"]),
    "gone base": (
        ["train", "--base=runwayml/stable-diffusion-v1-5", "--dataset=bases/images"],
        ["deleted from the Hub", "stable-diffusion-v1-5/stable-diffusion-v1-5"],
    ),
    "gone dataset": (
        [*TRAIN[:3], "--dataset=lambdalabs/pokemon-blip-captions"],
        ["deleted from the Hub", "lambdalabs/naruto-blip-captions"],
    ),
    "dataset": ([*TRAIN[:3], "--dataset=me/nowhere"], ["me/nowhere"]),
    "column": ([*TRAIN, "--image-column=photo"], ["photo", "image"]),
    "no data": (TRAIN[:3], ["--dataset"]),
    "no base": (["train", "--dataset=bases/images"], ["--base"]),
    "empty base": (
        ["train", "--base=", "--dataset=bases/images"],
        ["must be the repo id or folder", "--base"],
    ),
    "base's name": (["train", "--base=x", "--dataset=bases/images"], ["'x'", "owner/name"]),
    "empty dataset": ([*TRAIN[:3], "--dataset="], ["must be the repo id of a dataset", "--folder"]),
    "name to push to": (
        [*TRAIN, "--push-to-hub", "--hub-model-id=a b"],
        ["--hub-model-id", "owner/name"],
    ),
    "section": ([*TRAIN[:1], "--set=base=1", *TRAIN[1:]], ["base holds settings", "base.model"]),
    "base that is a dataset": ([*TRAIN[:2], "bases/images"], ["bases/images"]),
    "setting": ([*TRAIN, "--set", "adapter.rnak=4"], ["Did you mean adapter.rank?"]),
    "no images": ([*FOLDER, "{files}/no-images"], ["no-images"]),
    "strict": ([*FOLDER, "{files}/one-broken", "--strict"], ["broken.png"]),
    "other width": (
        ["run", "{files}/wide", "a", *BASE],
        ["made for bases/wide", "does not fit bases/epsilon"],
    ),
    "other family": (["run", "{files}/flux.safetensors", "a", *BASE], ["does not fit"]),
    "no base known": (["run", "{files}/flux.safetensors", "a"], ["state the base", "--base"]),
    "pickle": (["run", "{files}/pickle.safetensors", "a", *BASE], ["pickle", "safetensors"]),
    "other file": (["run", "{files}/old.ckpt", "a", *BASE], ["not a .safetensors file"]),
    "cut short": (["run", "{files}/short.safetensors", "a", *BASE], ["damaged"]),
    "0 bytes": (["inspect", "{files}/empty.safetensors"], ["not a safetensors file"]),
    "NaN": (["run", "{files}/nan.safetensors", "a", *BASE], ["not finite", "checkpoint"]),
    "missing path": (["inspect", "./nowhere"], ["no file or folder nowhere"]),
    "missing home": (["inspect", "~nobody-here/x"], ["no file or folder"]),
    "scheduler": (["run", "{files}/right", "a", "--scheduler=Best"], ["'Best'", "DDIM, "]),
    "device": (["run", "{files}/right", "a", "--device=abacus"], ["'abacus'", "--device"]),
    "width": (["run", "{files}/right", "a", "--width=60"], ["60", "multiple of 8", "56 or 64"]),
    "steps": (["run", "{files}/right", "a", "--steps=5000"], ["1000 timesteps"]),
    "format": (["run", "{files}/right", "a", "-o", "a.jpg"], ["PNG", "a.png"]),
    "output": (["run", "{files}/right", "a", "--steps=1", "-o", "{files}/taken/x"], ["taken"]),
    "nothing to push": (["push", "{files}/no-images", "me/x"], ["finished run"]),
    "push name": (["push", "{files}/right", "a b"], ["owner/name", "me/pokemon-lora"]),
    "push owner": (["push", "{files}/right", "bases/x"], ["may not push to bases", "me/x"]),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_known_failure_is_a_sentence_with_the_mend(
    hublora_cli: Cli, files: Path, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args, words = SENTENCES[case]
    done = hublora_cli(*(arg.replace("{files}", str(files)) for arg in args))
    assert done.status == 1, done.err
    assert "Traceback" not in done.err
    sentence = done.err[done.err.rindex("Error: ") :]
    assert all(word in sentence for word in words), sentence
    assert not done.out
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_misspelt_command_is_refused_with_the_right_one(hublora_cli: Cli) -> None:
    done = hublora_cli("trian")
    assert done.status == 2
    assert "Did you mean 'train'?" in done.err


@pytest.mark.parametrize("token", [None, "read"])
def test_an_unusable_token_is_refused_before_the_training(
    hublora_cli: Cli, hub_data: Path, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create_token(hub_data, "me", token) if token else ""
    monkeypatch.setenv("HF_TOKEN", made)
    done = hublora_cli(*TRAIN, "--push-to-hub", "--hub-model-id=me/x")
    assert done.status == 1
    assert ("hublora hub token create" if token else "hf auth login") in done.err
    assert "Data:" not in done.err
    assert not made or made not in done.err


def test_a_broken_image_is_named_and_skipped_with_a_count(
    hublora_cli: Cli, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hublora_cli(
        *FOLDER, str(files / "one-broken"), "--set", "validation.num_inference_steps=1"
    )
    assert done.status == 0, done.err
    assert "broken.png" in done.err
    assert done.out.splitlines()[-2:] == [
        'Use it: hublora run runs/one-broken-lora "…"',
        "Share it: hublora push runs/one-broken-lora one-broken-lora",
    ]


def test_a_full_disk_is_a_sentence_and_leaves_no_half_image(
    hublora_cli: Cli, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        done = hublora_cli("run", str(files / "right"), "a", "--steps=1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.status == 1
    assert "The disk is full" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args",
    [
        ["fly"],
        ["run"],
        ["run", "--steps", "x", "a"],
        ["inspect"],
        ["train", "--rnak=4"],
        ["run", "a"],
        ["compose", "me/a", "me/b", "--density", "0.5", "-o", "mix"],
        ["compose", "me/a", "me/b", "--rank", "8", "-o", "mix"],
        ["compose", "me/a", "me/b", "--merge", "cat", "--density", "0.5", "-o", "mix"],
    ],
)
def test_a_wrong_usage_exits_2(hublora_cli: Cli, args: list[str]) -> None:
    done = hublora_cli(*args)
    assert done.status == 2
    assert "Traceback" not in done.err
    assert not done.out


def test_debug_shows_the_traceback(cli: Cli) -> None:
    done = cli("run", "me/x:strong", "a", env={"HUBLORA_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RefError" in done.stderr
