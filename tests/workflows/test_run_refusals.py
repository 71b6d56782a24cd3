"""What `hublora run` refuses is one sentence, told before anything is drawn; nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

# Flags -> words of the refusal.
FLAGS: dict[tuple[str, ...], str] = {
    ("--guidance=nan",): "between -1000 and 1000, got nan",
    ("--guidance=inf",): "between -1000 and 1000, got inf",
    ("--guidance=1e30",): "between -1000 and 1000, got 1e+30",
    ("--steps=5000",): "5000 steps are too many",
    ("--width=63",): "not a multiple",
    ("--scheduler=Best",): "does not fit this pipeline",
    ("--device=meta",): "cannot use the device 'meta'",
    ("--device=banana",): "cannot use the device 'banana'",
    ("--device=cuda:99",): "cannot use the device 'cuda:99'",
    ("--device=",): "cannot use the device ''",
    ("--offload=model", "--device=cpu"): "no GPU to offload from",
    ("--base=",): "The base must be the repo id or folder",
    ("--base= ",): "The base must be the repo id or folder",
    ("--base=bases/not-there",): "bases/not-there",
    ("--base=bases/images",): "bases/images",
    ("--revision=not-there", "--base=bases/epsilon"): "not-there",
    ("--weight=1=1e30",): "is not a weight",
    ("--weight=1=nan",): "is not a weight",
    ("--weight=1=1,tail:0",): "nothing in the block 'tail'",
    ("--weight=3=1",): "matches none of the",
    ("-o", "a.txt/b.png"): "Nothing can be written to a.txt/b.png",
    ("-o", "a.txt/b"): "Nothing can be written to a.txt/b",
    ("-o", "a.txt"): "Nothing can be written to a.txt",
    ("-o", "/proc/hublora/b.png"): "Nothing can be written to /proc/hublora/b.png",
    ("-o", "folder.png"): "folder.png is a folder",
    ("-o", "a.jpg"): "Images are written as PNG",
    ("-o", "text.png"): "text.png is there already",
    ("-o", "photo.png"): "hublora has not made it",
    ("--image=a.txt",): "not an image",
    ("--rows=weight=0..nan:3",): "weight=0..nan:3",
}
REFS = {
    "{ref}:1e30": "between -1000 and 1000, got",
    "{ref}:-2000": "between -1000 and 1000, got",
    "{ref}:nan": "not a number",
    "{ref}@not-there": "not-there",
    "./no:such:file.safetensors": "no:such:file.safetensors",
    "./colon:x": "is not a number",
}


@pytest.fixture
def adapter(publish: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("text")
    Path("folder.png").mkdir()
    Path("text.png").write_text("text")
    Image.new("RGB", (8, 8)).save("photo.png")
    return publish("refusals", 1)


def test_flags_that_cannot_be_are_refused(adapter: str, hublora_cli: Any) -> None:
    def draw() -> bytes:
        done = hublora_cli("run", adapter, "a hill", "--steps=1", "-o", "a.png")
        assert done.status == 0, done.err
        return Path("a.png").read_bytes()

    before = draw()
    there = sorted(Path().rglob("*"))
    for flags, words in FLAGS.items():
        refuse(hublora_cli("run", adapter, "a hill", "--steps=1", *flags), words)
        assert sorted(Path().rglob("*")) == there, flags
    for ref, words in REFS.items():
        refuse(hublora_cli("run", ref.format(ref=adapter), "a hill", "--steps=1"), words)
        assert sorted(Path().rglob("*")) == there, ref
    for axes in ((), ("--rows=seed=2",)):
        refuse(hublora_cli("run", adapter, "a \udcff dog", *axes), "not valid UTF-8")
    assert draw() == before


def refuse(done: Any, words: str) -> None:
    assert done.status == 1, (words, done)
    assert words in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert 20 < len(line) < 600
    assert "Traceback" not in done.err


def test_a_path_may_hold_a_colon(adapter: str, hublora_cli: Any, bases: Path) -> None:
    from diffusers import StableDiffusionPipeline

    from tests.lora import random_adapter, save_adapter

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    save_adapter(random_adapter(pipe, size=0.1), Path("in:1"), "bases/epsilon")
    for ref in ("./in:1", "in:1", "./in:1:0.5", "./in:1/pytorch_lora_weights.safetensors"):
        done = hublora_cli("run", ref, "a", "--steps=1", "-o", "a.png")
        assert done.status == 0, done.err
