"""An image is reproduced from its own metadata, and drift is reported."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hublora.generation.metadata import read_image, save_image
from hublora.hub.download import download
from hublora.hub.repo_layout import WEIGHTS

RUN = ["a (red:1.3) <2>", "--steps=3", "--guidance=3", "--seed=5", "--negative-prompt=blue"]


@pytest.fixture
def png(publish: Callable[..., str], hublora_cli: Any, tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    refs = [publish("again-a", 1), f"{publish('again-b', 2, trigger='sks')}:0.5"]
    mixed = ["--compose=switch", "--weight=1=0.2..0.9", "--scheduler=DPM++ 2M Karras"]
    mixed += ["--timestep-spacing=trailing"]
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


def test_an_image_of_a_gallery_finds_its_adapter_in_its_own_folder(
    publish: Callable[..., str], hublora_cli: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(snapshot_download(publish("of-gallery", 3), local_dir=tmp_path / "repo"))
    (folder / "images").mkdir()
    named = ["-o", str(folder / "images" / "0.png")]
    done = hublora_cli("run", str(folder), "a hill", "--steps=1", *named)
    assert done.status == 0, done.err
    done = hublora_cli("replay", "repo/images/0.png", "--json", "-o", "again.png")
    assert done.status == 0, done.err
    assert json.loads(done.out)["difference"] == 0.0
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4] + b"\1\1\1\1")
    done = hublora_cli("replay", "repo/images/0.png")
    assert "Give its file: --adapter FILE" in done.err


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


def addnet_hash(path: Path) -> str:
    """Return a file's hash as AUTOMATIC1111 computes it (modules/hashes.py, addnet_hash)."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return hashlib.sha256(content[8 + length :]).hexdigest()


def test_other_tools_read_the_parameters(png: Path) -> None:
    with Image.open(png) as image:
        lines = image.text["parameters"].split("\n")
    assert lines[0] == "a (red:1.3) sks <lora:again-a:0.55> <lora:again-b:0.5>"
    assert lines[1] == "Negative prompt: blue"
    start = "Steps: 3, Sampler: DPM++ 2M, Schedule type: Karras, Timestep spacing: trailing, "
    assert lines[2].startswith(f"{start}CFG scale: 3.0, Seed: 5, ")
    named = [one["ref"].partition("@") for one in read_image(png)["adapters"]]
    hashes = [
        f"{repo.removeprefix('me/')}: {addnet_hash(download(repo, rest[:40], WEIGHTS))[:12]}"
        for repo, _, rest in named
    ]
    assert f'Lora hashes: "{", ".join(hashes)}"' in lines[2]


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


def facts(**changes: Any) -> dict[str, Any]:
    """Return what an image of two adapters records, with changes."""
    usual = {
        "base": "bases/epsilon",
        "base_revision": "main",
        "dtype": "float32",
        "sampling": {"prompt": "a", "num_inference_steps": 1, "seed": 0},
        "adapters": [{"ref": "me/again-a", "weight": 1, "sha256": "0" * 64}],
    }
    return {**usual, **changes}


def adapter(ref: object, **more: object) -> dict[str, Any]:
    return facts(adapters=[{"ref": ref, "weight": 1, **more}])


def sampling(**changes: object) -> dict[str, Any]:
    return facts(sampling={"prompt": "a", "num_inference_steps": 1, **changes})


def sheet(**changes: object) -> dict[str, Any]:
    return facts(sheet={"columns": {"name": "seed", "values": ["1"]}, **changes})


# What a stranger's image may say -> part of the sentence that refuses it.
HOSTILE: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "does not say how it was made"),
    "a list": ([], "does not say how it was made"),
    "base 3": (facts(base=3), "(base)"),
    "base above": (facts(base="../../etc"), "not of the form owner/name"),
    "base absolute": (facts(base="/etc"), "not of the form owner/name"),
    "base folder": (
        facts(base="/etc", base_revision=None),
        "generated with a folder or file as base",
    ),
    "revision": (facts(base_revision="--upload-pack=x"), "is not a revision"),
    "revision 3": (facts(base_revision=3), "(base_revision)"),
    "dtype": (facts(dtype=["float32"]), "(dtype)"),
    "compose": (facts(compose={}), "(compose)"),
    "trigger": (facts(trigger="maybe"), "(trigger)"),
    "versions": (facts(versions=[1]), "(versions)"),
    "no adapters": (facts(adapters={}), "(adapters)"),
    "adapter text": (facts(adapters=["a"]), "(adapters)"),
    "many adapters": (facts(adapters=[{"ref": "a/b", "weight": 1}] * 1000), "(adapters)"),
    "ref 3": (adapter(3), "(ref)"),
    "ref absolute": (adapter("/etc/passwd"), "is not an adapter ref"),
    "ref above": (adapter("../a.safetensors"), "is not an adapter ref"),
    "ref home": (adapter("~/a.safetensors"), "is not an adapter ref"),
    "ref file": (adapter("file:///etc/a.safetensors"), "is not"),
    "ref http": (adapter("http://example.com/a.safetensors"), "is not an https URL"),
    "ref two": (adapter("https://example.com/a|/etc/a.safetensors"), "(ref)"),
    "ref NUL": (adapter("me/a\0b"), "(ref)"),
    "ref private": (adapter("https://127.0.0.1:9/a.safetensors"), "is in a private network"),
    "ref metadata": (adapter("https://169.254.169.254/a.safetensors"), "is in a private network"),
    "ref localhost": (adapter("https://localhost:9/a.safetensors"), "is in a private network"),
    "weight": (adapter("me/again-a", weight=[1]) | {}, "(weight)"),
    "weight word": (facts(adapters=[{"ref": "me/a", "weight": "much"}]), "is not a weight"),
    "followed": (adapter("me/again-a", revision="../x"), "is not a revision"),
    "sampling": (facts(sampling=[]), "(sampling)"),
    "prompt": (sampling(prompt=3), "(prompt)"),
    "seed": (sampling(seed=-1), "(seed)"),
    "seed large": (sampling(seed=2**70), "(seed)"),
    "steps": (sampling(num_inference_steps="9"), "(num_inference_steps)"),
    "steps 0": (sampling(num_inference_steps=0), "(num_inference_steps)"),
    "steps many": (sampling(num_inference_steps=9000), "steps are too many"),
    "guidance": (sampling(guidance_scale=[7]), "(guidance_scale)"),
    "guidance inf": (sampling(guidance_scale=float("inf")), "(guidance_scale)"),
    "width": (sampling(width=10**9), "(width)"),
    "width odd": (sampling(width=65), "is not a multiple"),
    "scheduler": (sampling(scheduler="Popen"), "does not fit this pipeline"),
    "conditions": (facts(conditions=[1]), "(conditions)"),
    "image": (facts(conditions={"image": 3}), "incomplete"),
    "image above": (
        facts(conditions={"image": {"name": "../../etc/passwd", "sha256": "0"}}),
        "'passwd' (sha256 0…), which was not found",
    ),
    "controlnet": (facts(conditions={"controlnet": {}}), "incomplete"),
    "strength": (facts(conditions={"strength": "all"}), "incomplete"),
    "ip-adapter": (
        facts(conditions={"ip_adapter": "/etc/a.safetensors", "ip_adapter_image": 3}),
        "an IP-Adapter that was not on the Hub",
    ),
    "sheet 3": (facts(sheet=3), "(sheet)"),
    "sheet axis": (sheet(columns={"name": "mood", "values": ["good"]}), "is not an axis"),
    "sheet empty": (sheet(columns={"name": "seed", "values": []}), "1 to 1000 images"),
    "sheet large": (
        sheet(
            columns={"name": "seed", "values": ["1"] * 100},
            rows={"name": "seed", "values": ["1"] * 100},
        ),
        "1 to 1000 images",
    ),
    "sheet weight": (sheet(rows={"name": "weight.9", "values": ["1"]}), "adapter 9 of 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_stranger_wrote_is_one_sentence(
    name: str, publish: Callable[..., str], hublora_cli: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    published(publish)
    said, sentence = HOSTILE[name]
    save_text(tmp_path / "a.png", json.dumps(said))
    done = hublora_cli("replay", "a.png")
    assert done.status == 1
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.png"]


@functools.cache
def published(publish: Callable[..., str]) -> str:
    return publish("again-a", 1)


def save_text(path: Path, text: str) -> None:
    """Write a PNG whose metadata is `text`."""
    info = PngInfo()
    info.add_itxt("hublora", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def test_local_files_of_recorded_names_are_not_taken(
    publish: Callable[..., str], bases: Path, hublora_cli: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    published(publish)
    for folder in ("me/again-a", "bases/epsilon"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.safetensors").write_bytes(b"not the adapter on the Hub")
    save_text(tmp_path / "a.png", json.dumps(facts()))
    done = hublora_cli("replay", "a.png", "--json")
    assert done.status == 0, done.err


def test_damaged_images_are_one_sentence(hublora_cli: Any, tmp_path: Path) -> None:
    save_text(tmp_path / "whole.png", json.dumps(facts()))
    whole = (tmp_path / "whole.png").read_bytes()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    contents = {
        "text": b"no image",
        "empty": b"",
        "cut": whole[:-40],
        "pixels": whole.replace(b"IDAT", b"IDAX"),
        "large": whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:],
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(99),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    for name, text in {"deep": "[" * 100_000, "digits": "9" * 10_000, "no-json": "{"}.items():
        save_text(tmp_path / f"{name}.png", text)
        contents[name] = b""
    (tmp_path / "folder.png").mkdir()
    for name in [*contents, "folder", "missing"]:
        done = hublora_cli("replay", str(tmp_path / f"{name}.png"))
        assert done.status in (1, 2), name
        assert "Error: " in done.err, name
        assert "Traceback" not in done.err, name


def test_nothing_is_overwritten_that_was_not_named(png: Path, hublora_cli: Any) -> None:
    mine = png.with_name("first-replay.png")
    mine.write_text("mine")
    done = hublora_cli("replay", str(png), "--json")
    assert json.loads(done.out)["file"] == str(png.with_name("first-replay-2.png"))
    done = hublora_cli("replay", str(png), "-o", str(mine))
    assert (done.status, mine.read_text()) == (1, "mine")
    assert "was not generated by hublora" in done.err


def test_an_empty_prompt_is_replayed(
    publish: Callable[..., str], hublora_cli: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hublora_cli("run", published(publish), "", "--steps=1", "-o", "a.png")
    assert done.status == 0, done.err
    done = hublora_cli("replay", "a.png", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["difference"] == 0.0


def test_a_sheet_is_replayed(png: Path, publish: Callable[..., str], hublora_cli: Any) -> None:
    grid = hublora_cli(
        "run", "me/again-a", "a hill", "--steps=1", "-n", "2", "--grid", "-o", "g.png", "--json"
    )
    swept = hublora_cli(
        "run", "me/again-a:0.5", "me/again-b", "a hill", "--steps=1", "--rows=weight.2=0,0.7",
        "--columns=scheduler=DDIM", "-o", "s", "--json",
    )  # fmt: skip
    assert (grid.status, swept.status) == (0, 0), (grid.err, swept.err)
    for path in (json.loads(grid.out)["files"][-1], json.loads(swept.out.splitlines()[-1])["path"]):
        done = hublora_cli("replay", path, "--json")
        assert done.status == 0, done.err
        assert json.loads(done.out)["difference"] == 0.0
        assert done.err.count("Trigger words") == ("hill" in path), done.err
        assert read_image(Path(json.loads(done.out)["file"])) == read_image(Path(path))
        refused = hublora_cli("replay", path, "--seed=4")
        assert "A sheet is generated again with its own seeds" in refused.err
