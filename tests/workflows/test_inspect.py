"""Compositions, and products of other tools, where adapters are looked at, loaded or converted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file

import hublora
from hublora.errors import AdapterError, ConfigError
from hublora.filesystem import sha256_of
from hublora.hub.download import download
from hublora.hub.repo_layout import LOCK, WEIGHTS
from hublora.localhub import import_folder
from hublora.progress import Note
from hublora.resolution.lockfile import LockedBase, LockedPart, Lockfile
from hublora.workflows.inspect import measure_overlap, preflight

Publish = Callable[..., str]


@pytest.fixture(scope="module")
def mix(publish: Publish, hub_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A composition of two adapters: a folder, and me/looked-at on the Hub."""
    parts = []
    for name, seed, weight in (("looked-a", 1, "0.7"), ("looked-b", 2, "0.2..0.9")):
        commit = str(HfApi().repo_info(publish(name, seed)).sha)
        file = download(f"me/{name}", commit, WEIGHTS)
        part = {"repo": f"me/{name}", "commit": commit, "file": WEIGHTS, "weight": weight}
        parts.append(LockedPart(**part, sha256=sha256_of(file)))
    base = LockedBase(repo="bases/epsilon", commit=str(HfApi().repo_info("bases/epsilon").sha))
    folder = tmp_path_factory.mktemp("mix")
    (folder / LOCK).write_text(Lockfile(base=base, parts=tuple(parts)).render())
    import_folder(hub_data, "me/looked-at", folder)
    return folder


def test_a_composition_is_inspected_part_by_part(mix: Path) -> None:
    for ref in (str(mix), "me/looked-at"):
        facts = hublora.inspect(ref)
        assert [str(one.source).partition("@")[0] for one in facts] == [
            "me/looked-a",
            "me/looked-b",
        ]
    found = preflight("me/looked-at", base="bases/epsilon")
    assert [one.fit.fraction for one in found.adapters if one.fit] == [1.0, 1.0]
    assert len(measure_overlap("me/looked-at").pairs) == 1


def test_the_weights_in_a_composition_are_shown(mix: Path, hublora_cli: Any) -> None:
    shown = hublora_cli("inspect", "me/looked-at").out
    assert re.findall(r"^  weight +(\S+)$", shown, re.MULTILINE) == ["0.7", "0.2..0.9"]
    data = json.loads(hublora_cli("inspect", "me/looked-at", "me/looked-a", "--json").out)
    assert [one["weight"] for one in data["adapters"]] == ["0.7", "0.2..0.9", None]


def test_a_suggestion_names_adapters_as_they_were_typed(mix: Path, hublora_cli: Any) -> None:
    for refs in (["me/looked-at"], ["me/looked-a:0.5", f"hf://me/looked-b/{WEIGHTS}"]):
        overlap = hublora_cli("inspect", *refs, "--overlap").out.partition("Overlap")[2]
        assert "  me/looked-a and me/looked-b: " in overlap
        assert re.search(r'Try: hublora run me/looked-a\S* me/looked-b\S* "…"', overlap)
        assert "@" not in overlap


def test_a_placeholder_without_trigger_words_is_refused_by_the_name_that_was_typed(
    mix: Path,
) -> None:
    pipe = hublora.load("me/looked-a")
    with pytest.raises(ConfigError, match="<1> stands for me/looked-a, which names no trigger"):
        pipe.hublora.prompt("a <1>")


def test_a_composition_is_no_adapter_to_convert(mix: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"is a composition, .* hublora compose .* --merge cat"):
        hublora.convert(str(mix), "kohya", tmp_path / "a.safetensors")


def test_loading_a_product_tells_what_low_rank_costs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{stem}.lokr_w1": torch.randn(4, 4, generator=generator),
        f"{stem}.lokr_w2": torch.diag(torch.tensor([1.0, 0.5, 0.1, 0.005])),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    events: list[Any] = []
    hublora.load(str(tmp_path / "a.safetensors"), base="bases/epsilon", callback=events.append)
    (note,) = (one for one in events if isinstance(one, Note) and "low rank" in one.text)
    assert "uses lokr, which is rewritten as low rank" in note.text
    assert "differs by up to 0.4" in note.text


def test_a_kohya_file_is_summed_up_with_all_of_its_alphas(tmp_path: Path, hub_data: Path) -> None:
    tensors = {}
    layers = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": 1.0,
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0": 8.0,
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj": 8.0,
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_ff_net_2": 4.0,
        "lora_unet_mid_block_attentions_0_proj_in": 2.0,
        "lora_unet_down_blocks_0_resnets_0_conv1": 0.5,
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": 2.0,
        "lora_te_text_model_encoder_layers_1_mlp_fc1": 2.0,
    }
    for name, alpha in layers.items():
        tensors[f"{name}.lora_down.weight"] = torch.ones(2, 30_000)
        tensors[f"{name}.lora_up.weight"] = torch.ones(4, 2)
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, tmp_path / "kohya.safetensors")
    import_folder(hub_data, "me/kohya-alphas", tmp_path)
    for ref in (str(tmp_path / "kohya.safetensors"), "me/kohya-alphas"):
        (facts,) = hublora.inspect(ref)
        assert facts.alphas == (0.5, 1, 2, 4, 8)
        assert facts.targets == (
            *("conv1", "fc1", "net.2", "proj", "proj_in", "q_proj", "to_out.0", "to_q"),
        )


def test_text_of_a_stranger_s_file_stays_on_its_line(tmp_path: Path, hublora_cli: Any) -> None:
    from safetensors.torch import save_file

    tensors = {"unet.down_blocks.0.attentions.0.to_k.lora_A.weight": torch.ones(2, 8)}
    tensors["unet.down_blocks.0.attentions.0.to_k.lora_B.weight"] = torch.ones(8, 2)
    lines = "mit\n  fits           128 of 128 layers"
    metadata = {f"modelspec.{key}": lines for key in ("license", "title", "trigger_phrase")}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    done = hublora_cli("inspect", str(tmp_path / "a.safetensors"))
    assert done.status == 0, done.err
    assert "licence        mit fits 128 of 128 layers" in done.out
    assert not [line for line in done.out.splitlines() if line.split()[:1] == ["fits"]]


def test_a_licence_is_one_line_wherever_it_is_read() -> None:
    from hublora.hub.resolve import license_of

    for card in ({"license": "mit\n\nother: x"}, {"license": "other", "license_name": "mit\r\tx"}):
        license = license_of(card)
        assert license is not None
        assert license.splitlines() == [license]
