"""`load` and `run` with adapters that bring learned tokens and trigger words along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import hublora
from hublora.generation.metadata import read_image
from hublora.localhub import import_folder
from tests.entry import hublora_cli
from tests.lora import random_adapter, save_adapter

__all__ = ["hublora_cli"]


@pytest.fixture(scope="module")
def pivotal(hub: object, hub_data: Path, bases: Path, tmp_path_factory) -> list[str]:
    """Two pushed adapters that both call their token <s0>."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    names = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("pivotal")
        save_adapter(random_adapter(pipe, seed=seed, size=0.05), folder, "bases/epsilon")
        (folder / "embeddings").mkdir()
        vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))
        save_file({"clip_l": vectors}, folder / "embeddings" / "tokens.safetensors")
        (folder / "README.md").write_text("---\ninstance_prompt: toy <s0><s1>\n---\n")
        names.append(f"me/pivotal-{seed}")
        import_folder(hub_data, names[-1], folder)
    return names


def test_each_place_is_its_own_adapters_tokens(pivotal: list[str]) -> None:
    pipe = hublora.load(*pivotal)
    text = pipe.hublora.prompt("a <1> by <2>")
    assert text == "a toy <a1-s0-0><a1-s1-0> by toy <a2-s0-0><a2-s1-0>"
    alone = hublora.load(pivotal[1])
    with torch.no_grad():
        both = pipe.encode_prompt(pipe.hublora.prompt("<2>", "off"), "cpu", 1, False)[0]
        one = alone.encode_prompt(alone.hublora.prompt("<1>", "off"), "cpu", 1, False)[0]
    assert torch.equal(both, one)


def test_run_tells_and_records_what_the_prompt_became(
    pivotal: list[str], hublora_cli: Any, tmp_path: Path
) -> None:
    png = str(tmp_path / "a.png")
    done = hublora_cli("run", pivotal[0], "a (hill:1.3)", "--steps", "1", "-o", png, "-q")
    assert done.status == 0, done.err
    facts = read_image(tmp_path / "a.png")
    assert facts["sampling"]["prompt"] == "a (hill:1.3)"
    assert facts["expanded_prompt"] == "toy <a1-s0-0><a1-s1-0>, a (hill:1.3)"


def test_a_local_adapter_leaves_no_path_in_an_image(bases: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    save_adapter(random_adapter(pipe, size=0.05), tmp_path / "mine")
    base = str(bases / "epsilon")
    (path,) = hublora.run(
        [str(tmp_path / "mine")], "a hill", base=base, output=tmp_path / "a.png",
        num_inference_steps=1,
    )  # fmt: skip
    facts = read_image(path)
    assert facts["adapters"][0]["title"] == "mine"
    assert len(facts["adapters"][0]["sha256"]) == 64
    assert str(tmp_path) not in str(facts)
    assert str(bases) not in str(facts)
