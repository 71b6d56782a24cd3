"""Files as other tools write them: OneTrainer, AUTOMATIC1111, and tools that write two namings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import hublora
from hublora.adapters.adapter import Adapter
from hublora.adapters.files import load_adapter
from hublora.adapters.layouts import to_diffusers, to_kohya
from hublora.errors import AdapterError
from hublora.families.latent_diffusion.lora_names import native_names
from hublora.generation.lora.manager import layer_shapes
from hublora.generation.token_embeddings import add_tokens
from hublora.workflows.inspect import preflight
from tests.lora import Weighted, apply_adapters, random_adapter

Tensors = dict[str, torch.Tensor]
TARGETS = {
    "unet": ("to_q", "to_out.0", "proj_in", "conv1", "samplers.0.conv"),
    "text_encoder": ("q_proj", "fc1"),
    "text_encoder_2": ("q_proj", "text_projection"),
}
KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


def write(tensors: Tensors, path: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)


def omi(xl: Any, adapter: Adapter) -> Tensors:
    """OneTrainer's OMI naming: the U-Net's original names, CLIP's with their level."""
    native = native_names(list(layer_shapes(xl.unet)))
    found: Tensors = {}
    prefixes = {"text_encoder": "clip_l.", "text_encoder_2": "clip_g."}
    for component, modules in adapter.layers.items():
        for module, layer in modules.items():
            if component == "unet":
                name = f"unet.{native[module]}"
            else:
                level = "text_model." if module.startswith("encoder.") else ""
                name = prefixes[component] + level + module
            found[f"{name}.lora_down.weight"] = layer.down
            found[f"{name}.lora_up.weight"] = layer.up
            found[f"{name}.alpha"] = torch.tensor(float(layer.alpha))
    return found


def mixed(xl: Any, adapter: Adapter) -> Tensors:
    """The U-Net in kohya's naming and the text encoders in diffusers'."""
    unet = to_kohya(Adapter({"unet": adapter.layers["unet"]}), KOHYA)
    texts = {name: layers for name, layers in adapter.layers.items() if name != "unet"}
    return unet | with_alphas(Adapter(texts))


def twice(xl: Any, adapter: Adapter) -> Tensors:
    """Every layer in both namings."""
    return to_kohya(adapter, KOHYA) | with_alphas(adapter)


def with_alphas(adapter: Adapter) -> Tensors:
    tensors, _ = to_diffusers(adapter)
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        tensors[name.replace(".lora_A.weight", ".alpha")] = torch.tensor(2.0)
    return tensors


@pytest.mark.parametrize("naming", [omi, mixed, twice])
def test_every_layer_lands_where_it_belongs(xl: Any, tmp_path: Path, naming: Any) -> None:
    adapter = random_adapter(xl, TARGETS)
    write(naming(xl, adapter), tmp_path / "a.safetensors")
    (seen,) = preflight(str(tmp_path / "a.safetensors"), base="bases/xl").adapters
    assert seen.fit is not None
    assert (seen.fit.fraction, seen.fit.total) == (1.0, sum(map(len, adapter.layers.values())))
    assert not seen.problems
    name = apply_adapters(xl, [Weighted(load_adapter(tmp_path / "a.safetensors"))]).name
    for component, modules in adapter.layers.items():
        placed = dict(getattr(xl, component).named_modules())
        for module, layer in modules.items():
            down, up = (getattr(placed[module], f"lora_{half}")[name].weight for half in "AB")
            assert torch.equal(down, layer.down), module
            assert torch.allclose(up, layer.up * layer.scale), module


def test_a_layer_that_is_there_twice_with_different_values_is_refused(
    pipe: Any, tmp_path: Path
) -> None:
    adapter, other = (random_adapter(pipe, seed=seed) for seed in (0, 1))
    tensors = to_kohya(adapter, {"unet": "lora_unet"}) | with_alphas(other)
    write(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="twice, under two names and with different values"):
        load_adapter(tmp_path / "a.safetensors")


def bundle(pipe: Any, path: Path, embeddings: Mapping[str, torch.Tensor]) -> None:
    tensors = to_kohya(random_adapter(pipe), {"unet": "lora_unet"})
    write(tensors | {f"bundle_emb.{key}": one for key, one in embeddings.items()}, path)


@pytest.mark.parametrize("key", ["emb_params", "string_to_param.*", "clip_l"])
def test_token_embeddings_in_a_file_are_used_with_it(pipe: Any, tmp_path: Path, key: str) -> None:
    width = pipe.text_encoder.config.hidden_size
    vectors = torch.randn(2, width)
    bundle(pipe, tmp_path / "a.safetensors", {f"ohwx.{key}": vectors})
    loaded = hublora.load(str(tmp_path / "a.safetensors"), base="bases/epsilon")
    (part,) = loaded.hublora.adapters
    (token,) = part.tokens
    assert (token.name, token.length) == ("ohwx", 2)
    names = add_tokens(pipe, part.tokens, "a")
    ids = pipe.tokenizer("".join(names["ohwx"])).input_ids[1:-1]
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], vectors)
    (seen,) = preflight(str(tmp_path / "a.safetensors"), base="bases/epsilon").adapters
    assert not seen.problems


def test_token_embeddings_of_another_kind_are_refused(pipe: Any, tmp_path: Path) -> None:
    bundle(pipe, tmp_path / "a.safetensors", {"ohwx.clip_l_out": torch.ones(1, 8)})
    with pytest.raises(AdapterError, match=r"of a kind that is not read, .*clip_l_out"):
        hublora.load(str(tmp_path / "a.safetensors"), base="bases/epsilon")


def test_a_conversion_says_what_it_leaves_behind(pipe: Any, tmp_path: Path) -> None:
    bundle(pipe, tmp_path / "a.safetensors", {"ohwx.emb_params": torch.ones(1, 8)})
    events: list[Any] = []
    hublora.convert(
        str(tmp_path / "a.safetensors"), "diffusers", tmp_path / "out", callback=events.append
    )
    assert "bundles token embeddings, which are not converted: ohwx." in events[-1].text
