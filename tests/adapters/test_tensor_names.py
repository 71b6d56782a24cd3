"""Names in files find the layers they mean; diffusers' and PEFT's own code are the judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hublora.adapters.adapter import Adapter
from hublora.adapters.files import load_adapter
from hublora.adapters.layer_names import file_names
from hublora.adapters.match import match_layers
from hublora.adapters.tensor_names import parse_name
from hublora.errors import AdapterError
from hublora.families.latent_diffusion.lora_names import native_names
from hublora.generation.lora.manager import layer_shapes
from tests.adapters.test_kinds import image
from tests.lora import Weighted, apply_adapters, random_adapter

COMMON: dict[str, Any] = {"sample_size": 64, "in_channels": 4, "out_channels": 4}
SD_1_5 = {**COMMON, "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    **COMMON,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def real_unet(config: dict[str, Any]) -> Any:
    """Return a U-Net of the real size without any weights."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def as_diffusers_names(flat: dict[str, str], config: Any) -> dict[str, str]:
    """Return layer -> what diffusers' conversion makes of its name in kohya's layout."""
    from diffusers.loaders import lora_conversion_utils as conversion

    state: dict[str, Any] = {}
    for layer, name in flat.items():
        for half in ("down", "up"):
            state[f"lora_unet_{name}.lora_{half}.weight"] = layer
    state = conversion._maybe_map_sgm_blocks_to_diffusers(state, config)
    converted, _ = conversion._convert_non_diffusers_lora_to_diffusers(state)
    return {layer: parse_name(name)[1] for name, layer in converted.items()}  # type: ignore[index]


def test_each_layer_of_sdxl_has_the_block_name_that_diffusers_knows() -> None:
    unet = real_unet(SDXL)
    layers = list(layer_shapes(unet))
    native = native_names(layers)
    assert len(layers) == len(set(native.values())) == 794
    flat = {layer: name.replace(".", "_") for layer, name in native.items()}
    assert as_diffusers_names(flat, unet.config) == {layer: layer for layer in layers}


def test_the_block_names_of_an_adapter_alone_are_those_of_the_whole_unet() -> None:
    """A file that is converted has the attention layers only."""
    layers = list(layer_shapes(real_unet(SDXL)))
    whole = native_names(layers)
    attention = [layer for layer in layers if "attn" in layer]
    assert native_names(attention) == {layer: whole[layer] for layer in attention}


def test_each_layer_of_sd_1_5_is_found_by_kohyas_name_as_diffusers_finds_it() -> None:
    unet = real_unet(SD_1_5)
    flat = {layer: layer.replace(".", "_") for layer in layer_shapes(unet)}
    assert len(set(flat.values())) == len(flat)
    assert as_diffusers_names(flat, unet.config) == {layer: layer for layer in flat}


@pytest.mark.parametrize(
    ("kohya", "layer"),
    [  # as kohya-ss sd-scripts writes them for SDXL
        (
            "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        (
            "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
            "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj",
        ),
        ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
        ("middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
        (
            "output_blocks_2_1_transformer_blocks_9_attn2_to_out_0",
            "up_blocks.0.attentions.2.transformer_blocks.9.attn2.to_out.0",
        ),
        ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
        ("label_emb_0_2", "add_embedding.linear_2"),
    ],
)
def test_kohyas_names_for_sdxl(kohya: str, layer: str) -> None:
    names = file_names(list(layer_shapes(real_unet(SDXL))))
    assert {name.replace(".", "_"): own for name, own in names.items()}[kohya] == layer


def xl_tensors(adapter: Adapter, prefixes: dict[str, str], native: dict[str, str]) -> Any:
    tensors = {}
    for component, modules in adapter.layers.items():
        for module, layer in modules.items():
            name = prefixes[component] + native.get(module, module).replace(".", "_")
            tensors[f"{name}.lora_down.weight"] = layer.down
            tensors[f"{name}.lora_up.weight"] = layer.up
            tensors[f"{name}.alpha"] = torch.tensor(layer.alpha)
    return tensors


EVERYTHING = {
    "unet": ("to_q", "to_out.0", "proj_in", "ff.net.2", "conv1", "conv_shortcut", "samplers.0.conv",
             "linear_1", "conv_in", "conv_out", "time_emb_proj"),
    "text_encoder": ("q_proj", "fc1"),
    "text_encoder_2": ("q_proj", "fc1", "text_projection"),
}  # fmt: skip


def test_a_kohya_file_for_sdxl_lands_on_every_layer(xl: Any, tmp_path: Path) -> None:
    adapter = random_adapter(xl, EVERYTHING)
    native = native_names(list(layer_shapes(xl.unet)))
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    if not hasattr(xl.text_encoder, "text_model"):  # files have the level that the class lost
        prefixes["text_encoder"] += "text_model_"
    save_file(xl_tensors(adapter, prefixes, native), tmp_path / "a.safetensors")
    read = load_adapter(tmp_path / "a.safetensors")
    assert read.facts.components == ("text_encoder", "text_encoder_2", "unet")
    assert read.facts.architecture == "stable-diffusion-xl-v1-base"
    name = apply_adapters(xl, [Weighted(read)]).name
    for component, modules in adapter.layers.items():
        placed = dict(getattr(xl, component).named_modules())
        for module, layer in modules.items():
            assert torch.equal(placed[module].lora_A[name].weight, layer.down), module
            assert torch.allclose(placed[module].lora_B[name].weight, layer.up * layer.scale), (
                module
            )


def test_comfyuis_names_land_on_the_unet(xl: Any) -> None:
    adapter = random_adapter(xl, {"unet": EVERYTHING["unet"]})
    shapes = {"unet": layer_shapes(xl.unet)}
    native = native_names(list(shapes["unet"]))
    layers: dict[str, Any] = {}
    for module, layer in adapter.layers["unet"].items():
        parsed = parse_name(f"diffusion_model.{native[module]}.lora_A.weight")
        assert parsed is not None
        layers.setdefault(parsed[0], {})[parsed[1]] = layer
    fit = match_layers(layers, shapes, {"unet": file_names(list(shapes["unet"]))}, flattened=False)
    assert sorted(fit.matched.values()) == sorted(adapter.layers["unet"])


def peft_configs() -> dict[str, Any]:
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    targets = ["to_q", "proj_in", "ff.net.2", "conv1"]
    patterns: dict[str, Any] = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"proj_in": 5}}
    lora: dict[str, Any] = {"r": 3, "lora_alpha": 2, "target_modules": targets, **patterns}
    return {
        "lora": LoraConfig(init_lora_weights=False, **lora),
        "rank-stabilised": LoraConfig(init_lora_weights=False, use_rslora=True, **lora),
        "dora": LoraConfig(init_lora_weights=False, use_dora=True, **lora),
        "loha": LoHaConfig(r=2, alpha=3, target_modules=targets, init_weights=False, **patterns),
        "loha with cores": LoHaConfig(
            r=2, alpha=3, target_modules=targets, init_weights=False, use_effective_conv2d=True
        ),
        "lokr": LoKrConfig(r=2, alpha=3, target_modules=targets, init_weights=False),
        "lokr of both": LoKrConfig(
            r=1,
            alpha=3,
            target_modules=targets,
            init_weights=False,
            decompose_both=True,
            use_effective_conv2d=True,
        ),
        "lokr of whole matrices": LoKrConfig(
            r=64, alpha=3, target_modules=targets, init_weights=False
        ),
    }


@pytest.mark.parametrize("kind", peft_configs())
def test_a_folder_written_by_peft_acts_as_in_peft(
    pipe: Any, other: Any, tmp_path: Path, kind: str
) -> None:
    from peft import get_peft_model

    torch.manual_seed(0)
    wrapped = get_peft_model(other.unet, peft_configs()[kind])
    wrapped.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path / "adapter_model.safetensors")
    plain = image(pipe)
    apply_adapters(pipe, [Weighted(adapter)])
    change = (image(other) - plain).abs().max()
    assert change > 1e-3
    difference = (image(pipe) - image(other)).abs().max()
    assert difference <= (0.03 if adapter.error else 1e-4) * change


@pytest.mark.parametrize("dora", [False, True])
def test_a_peft_folder_of_a_text_encoder_lands_there(
    pipe: Any, other: Any, tmp_path: Path, dora: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(
        r=2, target_modules=["q_proj", "fc2"], init_lora_weights=False, use_dora=dora
    )
    wrapped = get_peft_model(other.text_encoder, config)
    wrapped.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path / "adapter_model.safetensors")
    assert adapter.facts.components == ("text_encoder",)
    apply_adapters(pipe, [Weighted(adapter)])
    tokens = pipe.tokenizer("a red star", return_tensors="pt").input_ids
    with torch.no_grad():
        found, wanted = pipe.text_encoder(tokens)[0], wrapped(tokens)[0]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_what_diffusers_saves_of_a_dora_is_read_whole(pipe: Any, tmp_path: Path) -> None:
    from peft import LoraConfig

    torch.manual_seed(0)
    config = LoraConfig(
        r=2, target_modules=["to_q", "conv1"], init_lora_weights=False, use_dora=True
    )
    pipe.unet.add_adapter(config, adapter_name="a")
    pipe.unet.save_lora_adapter(tmp_path, adapter_name="a")
    adapter = load_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    assert adapter.facts.methods == ("dora",)
    for name, layer in adapter.layers["unet"].items():
        placed = pipe.unet.get_submodule(name)
        assert torch.equal(layer.down, placed.lora_A["a"].weight)
        assert torch.equal(layer.magnitude, placed.lora_magnitude_vector["a"].weight.flatten())
    assert len(adapter.layers["unet"]) > 10


def test_layers_of_a_family_that_is_not_supported_are_refused_by_name(tmp_path: Path) -> None:
    """A video model in ComfyUI's names: no family has them, so nothing may be made of them."""
    tensors = {
        f"diffusion_model.blocks.0.self_attn.q.lora_{half}.weight": torch.ones(2, 2)
        for half in "AB"
    }
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"blocks\.0\.self_attn.*not support") as caught:
        load_adapter(tmp_path / "a.safetensors")
    assert "stable-diffusion-xl" in str(caught.value.hint)
