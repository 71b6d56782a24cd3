"""Every naming that adapters come in is read into the same layers, and written so that others
read it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.convert import diffusers_names, with_layer_names
from hublora.adapters.files import load_adapter, save_tensors
from hublora.adapters.layer_names import names_in_files
from hublora.adapters.layouts import to_diffusers, to_kohya
from hublora.adapters.parse import read_layers
from hublora.errors import AdapterError
from hublora.generation.lora.manager import layer_shapes
from tests.lora import (
    ATTENTION,
    Weighted,
    apply_adapters,
    random_adapter,
    same_layers,
    save_adapter,
)

TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")
KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te"}
BOTH = {"unet": ATTENTION, "text_encoder": TEXT}


def with_one_other_alpha(adapter: Adapter) -> Adapter:
    """Return the adapter with another alpha and rank in its first layer."""
    modules = dict(adapter.layers["unet"])
    name = next(iter(modules))
    down, up = modules[name].down, modules[name].up
    modules[name] = LowRank(down[:2].contiguous(), up[:, :2].contiguous(), 0.75)
    return Adapter({**adapter.layers, "unet": modules}, adapter.facts)


def test_diffusers_layout_is_read_as_it_was_written(pipe: Any, tmp_path: Path) -> None:
    adapter = with_one_other_alpha(random_adapter(pipe, BOTH))
    read = load_adapter(save_adapter(adapter, tmp_path))
    assert same_layers(read, adapter)
    assert read.facts.layout == "diffusers"
    assert read.facts.alphas == (0.75, 2.0)
    assert read.facts.ranks == (2, 3)
    assert read.facts.components == ("text_encoder", "unet")


def test_kohya_layout_is_read_as_it_was_written(pipe: Any, tmp_path: Path) -> None:
    adapter = with_one_other_alpha(random_adapter(pipe))
    save_tensors(to_kohya(adapter, KOHYA), tmp_path / "a.safetensors")
    read = load_adapter(tmp_path / "a.safetensors")
    assert read.facts.layout == "kohya"
    names = {"unet": names_in_files(pipe.unet, layer_shapes(pipe.unet))}
    assert same_layers(with_layer_names(read, diffusers_names(read, names)), adapter)


def test_diffusers_itself_loads_what_is_written_with_every_scale(pipe: Any, tmp_path: Path) -> None:
    adapter = with_one_other_alpha(random_adapter(pipe))
    pipe.load_lora_weights(save_adapter(adapter, tmp_path).parent, adapter_name="a")
    modules = dict(pipe.unet.named_modules())
    for name, layer in adapter.layers["unet"].items():
        assert torch.equal(modules[name].lora_A["a"].weight, layer.down)
        assert torch.equal(modules[name].lora_B["a"].weight, layer.up)
        assert modules[name].scaling["a"] == pytest.approx(layer.scale)


def test_diffusers_itself_loads_text_encoders_of_mixed_ranks_and_alphas(
    pipe: Any, tmp_path: Path
) -> None:
    """Files have the level `text_model`; transformers from 5.6 on has not."""
    adapter = random_adapter(pipe, BOTH)
    text = dict(adapter.layers["text_encoder"])
    (first, second, *_) = sorted(text)
    down, up = text[first].down, text[first].up
    text[first] = LowRank(down[:2].contiguous(), up[:, :2].contiguous(), 0.75)
    text[second] = replace(text[second], alpha=1.25)
    adapter = Adapter({**adapter.layers, "text_encoder": text}, adapter.facts)
    named = with_layer_names(adapter, diffusers_names(adapter))
    assert all(name.startswith("text_model.") for name in named.layers["text_encoder"])
    pipe.load_lora_weights(save_adapter(named, tmp_path).parent, adapter_name="a")
    modules = dict(pipe.text_encoder.named_modules())
    for name, layer in text.items():
        assert torch.equal(modules[name].lora_A["a"].weight, layer.down)
        assert modules[name].scaling["a"] == pytest.approx(layer.scale), name
    assert same_layers(load_adapter(tmp_path / "pytorch_lora_weights.safetensors"), named)


def test_diffusers_itself_loads_the_kohya_file(pipe: Any, tmp_path: Path) -> None:
    adapter = random_adapter(pipe)
    save_tensors(to_kohya(adapter, KOHYA), tmp_path / "a.safetensors")
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors", adapter_name="a")
    modules = dict(pipe.unet.named_modules())
    for name, layer in adapter.layers["unet"].items():
        assert modules[name].scaling["a"] == pytest.approx(layer.scale)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("{c}.{m}.lora.down.weight", "{c}.{m}.lora.up.weight"),
        ("{c}.{m}.lora_linear_layer.down.weight", "{c}.{m}.lora_linear_layer.up.weight"),
        ("{c}.{m}.lora_A.weight", "{c}.{m}.lora_B.weight"),
        ("base_model.model.{m}.lora_A.weight", "base_model.model.{m}.lora_B.weight"),
        ("{m}.lora_A.weight", "{m}.lora_B.weight"),
        ("{m}.lora.down.weight", "{m}.lora.up.weight"),
    ],
)
def test_older_namings_are_read(pipe: Any, down: str, up: str) -> None:
    adapter = random_adapter(pipe, alpha=3.0)
    tensors = {}
    for name, layer in adapter.layers["unet"].items():
        tensors[down.format(c="unet", m=name)] = layer.down
        tensors[up.format(c="unet", m=name)] = layer.up
    assert same_layers(Adapter(read_layers(tensors, {})), adapter)  # alpha = rank


def test_the_oldest_naming_of_attention_processors_is_read(pipe: Any) -> None:
    adapter = random_adapter(pipe, alpha=3.0)
    tensors = {}
    for name, layer in adapter.layers["unet"].items():
        attention, _, target = name.removesuffix(".0").rpartition(".")
        tensors[f"unet.{attention}.processor.{target}_lora.down.weight"] = layer.down
        tensors[f"unet.{attention}.processor.{target}_lora.up.weight"] = layer.up
    assert same_layers(Adapter(read_layers(tensors, {})), adapter)


@pytest.mark.parametrize("ending", [".q_proj.lora_linear_layer", ".to_q_lora"])
def test_old_text_encoder_namings_fit_the_text_encoder(
    pipe: Any, tmp_path: Path, ending: str
) -> None:
    layer = random_adapter(pipe, {"text_encoder": ["layers.0.self_attn.q_proj"]}, alpha=3.0)
    (update,) = layer.layers["text_encoder"].values()
    stem = f"text_encoder.text_model.encoder.layers.0.self_attn{ending}"
    save_file(
        {f"{stem}.down.weight": update.down, f"{stem}.up.weight": update.up},
        tmp_path / "a.safetensors",
    )
    name = apply_adapters(pipe, [Weighted(load_adapter(tmp_path / "a.safetensors"))]).name
    placed = pipe.text_encoder.get_submodule("encoder.layers.0.self_attn.q_proj")
    assert torch.equal(placed.lora_A[name].weight, update.down)


def test_kohya_text_encoder_files_fit_the_text_encoder(pipe: Any, tmp_path: Path) -> None:
    adapter = random_adapter(pipe, {"text_encoder": ["self_attn.q_proj"]})
    tensors = {}
    for name, layer in adapter.layers["text_encoder"].items():
        stem = "lora_te_text_model_" + name.replace(".", "_")
        tensors[f"{stem}.lora_down.weight"] = layer.down
        tensors[f"{stem}.lora_up.weight"] = layer.up
        tensors[f"{stem}.alpha"] = torch.tensor(layer.alpha)
    save_file(tensors, tmp_path / "a.safetensors")
    name = apply_adapters(pipe, [Weighted(load_adapter(tmp_path / "a.safetensors"))]).name
    placed = pipe.text_encoder.get_submodule("encoder.layers.0.self_attn.q_proj")
    update = adapter.layers["text_encoder"]["encoder.layers.0.self_attn.q_proj"]
    assert torch.allclose(placed.lora_B[name].weight, update.up * 2 / 3)


def test_a_file_of_mixed_names_is_read_whole(pipe: Any, tmp_path: Path) -> None:
    """The diffusers training script writes such files, and diffusers loads half of them."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    targets = ["to_k", "to_q", "to_v", "to_out.0", "proj_in", "ff.net.2"]
    pipe.unet.add_adapter(LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    wanted = get_peft_model_state_dict(pipe.unet)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=convert_state_dict_to_diffusers(wanted)
    )
    file = tmp_path / "pytorch_lora_weights.safetensors"
    names = list(load_file(file))
    assert any(".lora.down" in name for name in names)
    assert any(".lora_A" in name for name in names)

    pipe.delete_adapters(["default"])
    pipe.load_lora_weights(tmp_path, adapter_name="theirs")
    modules = dict(pipe.unet.named_modules())
    theirs = sum("theirs" in getattr(module, "lora_A", {}) for module in modules.values())
    assert 2 * theirs < len(names), "diffusers reads such files whole now: this test has no point"

    pipe.unload_lora_weights()
    name = apply_adapters(pipe, [Weighted(load_adapter(file))]).name
    placed = get_peft_model_state_dict(pipe.unet, adapter_name=name)
    assert placed.keys() == wanted.keys()
    assert all(torch.equal(placed[key], tensor) for key, tensor in wanted.items())


def peft_folder(adapter: Adapter, folder: Path, **config: Any) -> Path:
    """Write the U-Net's part as `PeftModel.save_pretrained` does."""
    tensors = {}
    for name, layer in adapter.layers["unet"].items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = layer.down
        tensors[f"base_model.model.{name}.lora_B.weight"] = layer.up
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "lora_alpha": 2.0, "r": 3, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder / "adapter_model.safetensors"


def test_a_peft_folder_is_read_with_its_alphas_and_its_base(pipe: Any, tmp_path: Path) -> None:
    adapter = random_adapter(pipe)
    first = next(iter(adapter.layers["unet"]))
    file = peft_folder(
        adapter,
        tmp_path,
        alpha_pattern={first: 0.5},
        base_model_name_or_path="bases/epsilon",
    )
    read = load_adapter(file)
    assert read.layers["unet"][first].alpha == 0.5
    assert {layer.alpha for layer in read.layers["unet"].values()} == {0.5, 2.0}
    assert read.facts.base_model == "bases/epsilon"
    assert read.facts.alphas == (0.5, 2.0)


def test_a_rank_stabilised_adapter_keeps_its_scale(pipe: Any, tmp_path: Path) -> None:
    read = load_adapter(peft_folder(random_adapter(pipe), tmp_path, use_rslora=True))
    for layer in read.layers["unet"].values():
        assert layer.scale == pytest.approx(2 / 3**0.5)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"peft_type": "BOFT"}, "BOFT"),
        ({"lora_alpha": "strong"}, "must be a finite number"),
        ({"lora_alpha": float("inf")}, "must be a finite number"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "not the name of a layer"),
    ],
)
def test_a_peft_folder_that_cannot_be_applied_is_refused(
    pipe: Any, tmp_path: Path, config: dict[str, Any], word: str
) -> None:
    with pytest.raises(AdapterError, match=word):
        load_adapter(peft_folder(random_adapter(pipe), tmp_path, **config))


def test_written_layouts_keep_the_name_that_other_tools_know_text_encoders_by(pipe: Any) -> None:
    """transformers took `text_model` out of its class; files, ComfyUI and AUTOMATIC1111 did not."""
    from hublora.training.lora_module import ADAPTER_NAME, LoraModule

    pipe.text_encoder.add_adapter(_text_config(), adapter_name=ADAPTER_NAME)
    adapter = Adapter({"text_encoder": LoraModule(pipe.text_encoder, "lora").read()})
    stem = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    assert f"{stem}.lora_A.weight" in to_diffusers(adapter)[0]
    flat = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    assert f"{flat}.lora_down.weight" in to_kohya(adapter, KOHYA)


def _text_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=2, target_modules=["q_proj"])


def test_a_component_without_a_place_in_kohyas_layout_is_refused(pipe: Any) -> None:
    with pytest.raises(AdapterError, match=r"text_encoder"):
        to_kohya(random_adapter(pipe, BOTH), {"unet": "lora_unet"})
