"""`hublora convert` changes names and metadata, and tensors only where it says so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.files import load_adapter, save_tensors
from hublora.adapters.layouts import to_diffusers
from hublora.errors import AdapterError, ConfigError
from hublora.families.latent_diffusion.lora_names import from_native, native_names, unflatten
from hublora.generation.lora.manager import layer_shapes
from hublora.workflows.convert import convert
from tests.adapters.test_kinds import KINDS, file_and_base, image, kohya_name, peft_name
from tests.adapters.test_tensor_names import SD_1_5, SDXL, real_unet
from tests.entry import hublora_cli
from tests.lora import (
    ATTENTION,
    Weighted,
    apply_adapters,
    random_adapter,
    same_layers,
    save_adapter,
)

__all__ = ["hublora_cli"]

LAYOUTS = ("diffusers", "kohya", "peft")
NAMES = {
    "epsilon": {
        "unet": (*ATTENTION, "proj_in", "ff.net.2", "conv1", "samplers.0.conv", "time_emb_proj"),
        "text_encoder": ("q_proj", "fc1"),
    },
    "xl": {
        "unet": (*ATTENTION, "proj_in", "ff.net.2", "conv1", "samplers.0.conv", "linear_1"),
        "text_encoder": ("q_proj", "fc1"),
        "text_encoder_2": ("q_proj", "fc1"),
    },
}
METADATA = {
    "hublora.trigger_words": "sks, dog",
    "modelspec.license": "mit",
    "somebody's own": "kept",
    "hublora.family": "",
}


def base_of(name: str, bases: Path) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(bases / name)


def adapter_of(pipe: Any, name: str, dora: bool = False) -> Adapter:
    """Return a random adapter under the names of files, with one alpha and rank of its own."""
    adapter = random_adapter(pipe, NAMES[name])
    layers: dict[str, dict[str, LowRank]] = {}
    for component, modules in adapter.layers.items():
        for module, layer in modules.items():
            wrapped = component != "unet" and not module.startswith("text_model.")
            magnitude = torch.rand(layer.up.shape[0]) + 0.5 if dora else None
            own = LowRank(layer.down, layer.up, layer.alpha, magnitude)
            layers.setdefault(component, {})["text_model." * wrapped + module] = own
    first = next(iter(layers["unet"]))
    one = layers["unet"][first]
    layers["unet"][first] = LowRank(
        one.down[:2].contiguous(), one.up[:, :2].contiguous(), 0.75, one.magnitude
    )
    return Adapter(layers)


def written(adapter: Adapter, path: Path, family: str) -> Path:
    tensors, metadata = to_diffusers(adapter)
    save_tensors(tensors, path, metadata | METADATA | {"hublora.family": family})
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_lora_and_dora_go_round_bit_for_bit(
    bases: Path, tmp_path: Path, name: str, dora: bool
) -> None:
    adapter = adapter_of(base_of(name, bases), name, dora)
    family = "stable-diffusion-xl" if name == "xl" else "stable-diffusion"
    start = written(adapter, tmp_path / "start.safetensors", family)
    flat = tmp_path / "kohya.safetensors"
    base = str(bases / name)
    assert convert(str(start), "kohya", flat, base=base).error == 0
    back = tmp_path / "back.safetensors"
    assert convert(str(flat), "diffusers", back, base=base).error == 0
    assert same_layers(load_adapter(back), adapter)
    first, last = load_file(start), load_file(back)
    assert first.keys() == last.keys()
    assert all(torch.equal(first[key], last[key]) for key in first)
    again = tmp_path / "again.safetensors"
    convert(str(back), "kohya", again, base=base)
    one, other = load_file(flat), load_file(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    for file in (flat, back, again):
        assert METADATA.keys() <= metadata_of(file).keys()
        assert metadata_of(file)["somebody's own"] == "kept"
        assert metadata_of(file)["hublora.trigger_words"] == "sks, dog"


def test_kohyas_file_for_sdxl_has_its_block_names(bases: Path, tmp_path: Path) -> None:
    adapter = adapter_of(base_of("xl", bases), "xl")
    start = written(adapter, tmp_path / "start.safetensors", "stable-diffusion-xl")
    flat = tmp_path / "kohya.safetensors"
    convert(str(start), "kohya", flat, base="bases/xl")
    names = {key.partition(".")[0] for key in load_file(flat)}
    prefixes = ("lora_unet_", "lora_te1_text_model_", "lora_te2_text_model_")
    assert all(name.startswith(prefixes) for name in names)
    unet = [name.removeprefix("lora_unet_") for name in names if name.startswith("lora_unet_")]
    blocks = ("input_blocks_", "middle_block_", "output_blocks_", "time_embed_", "label_emb_")
    assert unet
    assert all(name.startswith(blocks) for name in unet)


@pytest.mark.parametrize("config", [SD_1_5, SDXL], ids=["sd 1.5", "sdxl"])
def test_flat_names_of_the_published_unets_are_parsed_without_the_base(config: Any) -> None:
    layers = list(layer_shapes(real_unet(config)))
    native = native_names(layers)
    for layer in layers:
        assert unflatten(layer.replace(".", "_")) == layer
        assert from_native(native[layer]) == layer
        assert unflatten(native[layer].replace(".", "_")) == layer


def test_flat_names_of_text_encoders_are_parsed_without_the_base(bases: Path) -> None:
    pipe = base_of("xl", bases)
    for model in (pipe.text_encoder, pipe.text_encoder_2):
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                assert unflatten(name.replace(".", "_")) == name


def test_a_name_that_tells_no_layer_asks_for_the_base(tmp_path: Path) -> None:
    tensors = {
        f"lora_unet_odd_place.lora_{half}.weight": torch.ones(2, 2) for half in ("down", "up")
    }
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"'odd_place' does not determine a layer.*: base"):
        convert(str(tmp_path / "a.safetensors"), "diffusers", tmp_path / "out")
    with pytest.raises(AdapterError, match=r"base model's unet has no layer 'odd_place'"):
        convert(
            str(tmp_path / "a.safetensors"), "diffusers", tmp_path / "out", base="bases/epsilon"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "to"), itertools.product(KINDS, LAYOUTS))
def test_a_converted_adapter_generates_the_same_image(
    pipe: Any, other: Any, tmp_path: Path, kind: str, to: Any
) -> None:
    start = tmp_path / "adapter_model.safetensors"
    file_and_base(pipe, start, kind, kohya_name, ("attn1.to_q", "ff.net.2", "resnets.0.conv1"))
    done = convert(str(start), to, tmp_path / "out")
    assert done.error == 0 or (kind.startswith("lokr") and to != "kohya" and done.error <= 0.01)
    plain = image(pipe)
    apply_adapters(pipe, [Weighted(load_adapter(start))])
    apply_adapters(other, [Weighted(load_adapter(done.files[0]))])
    change = (image(pipe) - plain).abs().max()
    assert (image(pipe) - image(other)).abs().max() <= 1e-3 * change
    if to == "kohya":
        one, two = load_file(start), load_file(done.files[0])
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("kind", ["loha", "loha_with_cores", "lokr_with_factors", "dora"])
def test_products_keep_their_factors_in_kohyas_layout(
    pipe: Any, other: Any, tmp_path: Path, kind: str
) -> None:
    start = tmp_path / "adapter_model.safetensors"
    file_and_base(pipe, start, kind, peft_name, ("attn1.to_q", "resnets.0.conv1"))
    (file,) = convert(str(start), "kohya", tmp_path / "a.safetensors").files
    apply_adapters(pipe, [Weighted(load_adapter(start))])
    apply_adapters(other, [Weighted(load_adapter(file))])
    assert torch.allclose(image(pipe), image(other), atol=1e-5)
    assert load_adapter(file).facts.methods == (kind.partition("_")[0],)


@pytest.mark.parametrize("base", [None, "bases/epsilon"])
@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_diffusers_and_peft_themselves_take_what_was_converted(
    pipe: Any, other: Any, bases: Path, tmp_path: Path, kind: str, base: str | None
) -> None:
    """LyCORIS flattens kernels; which of these layers is a convolution, names or the base tell."""
    from peft import PeftModel

    start = tmp_path / "start.safetensors"
    modules = ("attn1.to_q", "conv1", *(("proj_in", "conv_shortcut") if base else ()))
    file_and_base(pipe, start, kind, kohya_name, modules)
    (file,) = convert(str(start), "diffusers", tmp_path / "diffusers", base=base).files
    (peft,) = convert(str(start), "peft", tmp_path / "peft", base=base).files
    apply_adapters(pipe, [Weighted(load_adapter(start))])
    other.load_lora_weights(file.parent)
    assert torch.allclose(image(pipe), image(other), atol=1e-5)
    third = base_of("epsilon", bases)
    third.unet = PeftModel.from_pretrained(third.unet, peft.parent).base_model.model
    assert torch.allclose(image(pipe), image(third), atol=1e-5)


def test_a_peft_adapter_of_several_models_is_several_folders(bases: Path, tmp_path: Path) -> None:
    adapter = adapter_of(base_of("epsilon", bases), "epsilon")
    start = written(adapter, tmp_path / "start.safetensors", "stable-diffusion")
    files = convert(str(start), "peft", tmp_path / "out").files
    assert [file.parent.name for file in files] == list(load_adapter(start).layers)
    layers: dict[str, Any] = {}
    for file in files:
        layers |= load_adapter(file).layers
        assert json.loads((file.parent / "adapter_config.json").read_text())["peft_type"] == "LORA"
    text = adapter.layers["text_encoder"].items()
    bare = {name.removeprefix("text_model."): layer for name, layer in text}  # as in the model
    assert same_layers(Adapter(layers), Adapter({**adapter.layers, "text_encoder": bare}))
    with pytest.raises(ConfigError, match=r"is a folder"):
        convert(str(start), "peft", tmp_path / "x.safetensors")


def text_of(model: Any) -> torch.Tensor:
    """Return what a text encoder makes of fixed tokens."""
    with torch.no_grad():
        return model(torch.arange(1, 9)[None]).last_hidden_state


@pytest.mark.parametrize("name", NAMES)
def test_peft_and_diffusers_themselves_take_text_encoders_of_mixed_ranks_and_alphas(
    bases: Path, tmp_path: Path, name: str
) -> None:
    """Files have the level `text_model`; transformers from 5.6 on has not."""
    from peft import PeftModel

    pipe = base_of(name, bases)
    encoders = [one for one in NAMES[name] if one != "unet"]
    layers = dict(adapter_of(pipe, name).layers)
    for component in encoders:
        first, second, *_ = sorted(layers[component])
        one, other = layers[component][first], layers[component][second]
        own = LowRank(one.down[:2].contiguous(), one.up[:, :2].contiguous(), 0.75)
        layers[component] |= {first: own, second: LowRank(other.down, other.up, 1.25)}
    start = written(Adapter(layers), tmp_path / "start.safetensors", "")
    (file,) = convert(str(start), "diffusers", tmp_path / "diffusers").files
    folders = {one.parent.name: one.parent for one in convert(str(start), "peft", tmp_path).files}
    plain = {one: text_of(getattr(pipe, one)) for one in encoders}
    theirs, wrapped = base_of(name, bases), base_of(name, bases)
    theirs.load_lora_weights(file.parent)
    apply_adapters(pipe, [Weighted(load_adapter(start))])
    for component in encoders:
        found = text_of(getattr(pipe, component))
        assert not torch.allclose(found, plain[component], atol=1e-2)
        assert torch.allclose(text_of(getattr(theirs, component)), found, atol=1e-5)
        own = PeftModel.from_pretrained(getattr(wrapped, component), folders[component])
        assert torch.allclose(text_of(own), found, atol=1e-5)


@pytest.mark.parametrize("to", LAYOUTS)
def test_a_smaller_rank_is_the_best_of_its_rank_and_says_what_it_lost(
    pipe: Any, tmp_path: Path, to: Any
) -> None:
    adapter = random_adapter(pipe, {"unet": ("to_q", "conv1")}, rank=4)
    start = save_adapter(adapter, tmp_path)
    done = convert(str(start), to, tmp_path / "out", rank=2)
    read = load_adapter(done.files[0])
    worst = 0.0
    for module, layer in adapter.layers["unet"].items():
        name = module.replace(".", "_") if to == "kohya" else module
        small = read.layers["unet"][name]
        dense = layer.scale * layer.up.flatten(1) @ layer.down.flatten(1)
        left = dense - small.scale * small.up.flatten(1) @ small.down.flatten(1)
        best = torch.linalg.svdvals(dense)[2:].norm()
        assert small.rank == 2
        assert float(left.norm()) == pytest.approx(float(best), rel=1e-3)
        worst = max(worst, float(left.norm() / dense.norm()))
    assert done.error == pytest.approx(worst, rel=1e-3)


def test_facts_that_only_the_card_has_go_into_the_file(pipe: Any, tmp_path: Path) -> None:
    save_adapter(random_adapter(pipe), tmp_path)
    (tmp_path / "README.md").write_text(
        "---\nbase_model: bases/epsilon\nlicense: mit\ninstance_prompt: sks dog\n---\n"
    )
    (file,) = convert(str(tmp_path), "kohya", tmp_path / "out.safetensors").files
    facts = load_adapter(file).facts
    assert (facts.base_model, facts.license) == ("bases/epsilon", "mit")
    assert facts.trigger_words == ("sks dog",)


def test_nothing_is_written_over(pipe: Any, tmp_path: Path) -> None:
    file = save_adapter(random_adapter(pipe), tmp_path)
    before = file.read_bytes()
    for to in ("diffusers", "kohya"):
        with pytest.raises(ConfigError, match=r"exists already"):
            convert(str(file), to, file)
    with pytest.raises(ConfigError, match=r"conversion must have no weight"):
        convert(f"{file}:0.5", "kohya", tmp_path / "x.safetensors")
    assert file.read_bytes() == before
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"adapter_config.json exists already"):
        convert(str(file), "peft", tmp_path / "peft")
    assert [path.read_text() for path in (tmp_path / "peft").iterdir()] == ["mine"]
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"exists already"):
        convert(str(file), "kohya", tmp_path / "link.safetensors")


def test_a_title_that_is_a_path_stays_in_the_folder(pipe: Any, tmp_path: Path) -> None:
    save_adapter(random_adapter(pipe), tmp_path / "in", **{"modelspec.title": "../../x/y z"})
    (file,) = convert(str(tmp_path / "in"), "kohya", tmp_path / "out").files
    assert file == tmp_path / "out" / "x-y-z.safetensors"


def test_the_command_says_whether_something_was_lost(
    hublora_cli: Callable[..., Any], pipe: Any, tmp_path: Path
) -> None:
    file = save_adapter(random_adapter(pipe, rank=4), tmp_path)
    out = tmp_path / "a.safetensors"
    done = hublora_cli("convert", str(file), "--to", "kohya", "-o", str(out))
    assert done.status == 0, done.err
    assert done.out == f"{out}\nLossless: the update of every layer is unchanged.\n"
    done = hublora_cli("convert", str(file), "--to=peft", "-o", str(tmp_path / "p"), "--rank=1")
    assert "Not lossless: a layer differs by up to " in done.out
    args = ["convert", str(file), "--to=peft", "-o", str(tmp_path / "q"), "--rank=1", "--json"]
    said = json.loads(hublora_cli(*args).out)
    assert (said["lossless"], said["layout"]) == (False, "peft")
    assert 0 < said["error"] < 1
