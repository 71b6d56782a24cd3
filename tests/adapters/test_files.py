"""Files that are broken, unsafe or something else are refused in a sentence."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hublora.adapters.files import load_adapter, save_tensors
from hublora.adapters.header import read_file_header, read_header
from hublora.adapters.parse import read_layers
from hublora.adapters.tensor_names import parse_name
from hublora.errors import AdapterError
from tests.lora import random_adapter, same_layers, save_adapter

DOWN, UP = "unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight"


def file_with_header(path: Path, header: object, data: bytes = b"", length: int = -1) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length < 0 else length) + text + data)
    return path


def entry(begin: int, end: int, shape: object = (1, 1), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS: dict[str, tuple[object, int]] = {
    "a length beyond the file": ({}, 5_000),
    "a length beyond any file": ({}, 2**63),
    "not an object": ([1, 2], -1),
    "an entry that is text": ({DOWN: "x"}, -1),
    "no offsets": ({DOWN: {"dtype": "F32", "shape": [1, 1]}}, -1),
    "offsets of text": ({DOWN: entry("0", "4")}, -1),  # type: ignore[arg-type]
    "overlapping data": ({DOWN: entry(0, 4), UP: entry(0, 4)}, -1),
    "a gap in the data": ({DOWN: entry(0, 4), UP: entry(8, 12)}, -1),
    "data that ends before it begins": ({DOWN: entry(4, 0)}, -1),
    "a negative size": ({DOWN: entry(0, 4, (-1, -1))}, -1),
    "a shape that is no list": ({DOWN: entry(0, 4, 3)}, -1),
    "metadata that is a list": ({"__metadata__": ["x"], DOWN: entry(0, 4)}, -1),
    "metadata that is not text": ({"__metadata__": {"a": 1}, DOWN: entry(0, 4)}, -1),
    "a shape of another size": ({DOWN: entry(0, 4, (9, 9)), UP: entry(4, 8)}, -1),
    "an unknown type": ({DOWN: entry(0, 4, dtype="F99"), UP: entry(4, 8)}, -1),
}


@pytest.mark.parametrize("lie", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    header, length = HEADERS[lie]
    path = file_with_header(tmp_path / "a.safetensors", header, b"\0" * 8, length)
    with pytest.raises(AdapterError) as caught:
        load_adapter(path)
    assert "a.safetensors" in str(caught.value)
    assert caught.value.hint


def test_a_header_of_endless_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    text = b"[" * 200_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(AdapterError, match=r"is not valid"):
        load_adapter(path)


def test_a_header_is_read_without_the_rest_of_the_file(pipe: Any, tmp_path: Path) -> None:
    file = save_adapter(random_adapter(pipe), tmp_path)
    content = file.read_bytes()
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return content[offset : offset + length]

    header = read_header(read, "a")
    assert asked == [(0, 8), (8, header.header_bytes - 8)]
    assert header == read_file_header(file)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1])
def test_a_file_cut_short_is_refused(pipe: Any, tmp_path: Path, keep: int) -> None:
    file = save_adapter(random_adapter(pipe), tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(AdapterError, match=file.name):
        load_adapter(file)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.save({DOWN: torch.ones(1, 1)}, path)
    with pytest.raises(AdapterError, match=r"pickle"):
        load_adapter(path)
    path.write_bytes(b"\x80\x04" + b"x" * 100)
    with pytest.raises(AdapterError, match=r"pickle"):
        load_adapter(path)


def test_a_web_page_is_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("<!doctype html><title>Sign in</title>" * 100)
    with pytest.raises(AdapterError, match=r"web page"):
        load_adapter(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_are_refused(
    tmp_path: Path, bad: float, dtype: torch.dtype
) -> None:
    down = torch.ones(2, 4, dtype=dtype)
    down[1, 3] = bad
    save_file({DOWN: down, UP: torch.ones(4, 2, dtype=dtype)}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"not finite"):
        load_adapter(tmp_path / "a.safetensors")


def test_weights_in_eight_bits_are_read_and_checked(tmp_path: Path) -> None:
    kind = torch.float8_e4m3fn
    tensors = {DOWN: torch.ones(2, 4).to(kind), UP: torch.ones(4, 2).to(kind)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert load_adapter(tmp_path / "a.safetensors").facts.dtype == "F8_E4M3"
    tensors[DOWN] = torch.full((2, 4), float("nan")).to(kind)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"not finite"):
        load_adapter(tmp_path / "a.safetensors")


TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "only some of the parts": lambda t: t.pop(UP),
    "do not match": lambda t: t.update({UP: torch.ones(4, 3)}),
    "is of no kind": lambda t: t.update({"unet.a.to_q.strange": torch.ones(2, 2)}),
    "alpha, down, hada_w1_a, up": lambda t: t.update(
        {"unet.a.to_q.hada_w1_a": torch.ones(2, 2), "unet.a.to_q.alpha": torch.ones(())}
    ),
    "contains full biases": lambda t: t.update({"unet.a.to_q.diff_b": torch.ones(2)}),
    "contains OFT": lambda t: (t.clear(), t.update({"lora_unet_a.oft_blocks": torch.ones(2)})),
    "twice": lambda t: t.update({"unet.a.to_q.lora.down.weight": torch.zeros(2, 4)}),
    "not a LoRA adapter": lambda t: (t.clear(), t.update({"conv_in.weight": torch.ones(2)})),
    "must be one number": lambda t: t.update({"unet.a.to_q.alpha": torch.ones(3)}),
}


@pytest.mark.parametrize("word", TENSORS)
def test_tensors_that_make_no_adapter_are_refused(tmp_path: Path, word: str) -> None:
    tensors = {DOWN: torch.ones(2, 4), UP: torch.ones(4, 2)}
    TENSORS[word](tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=word):
        load_adapter(tmp_path / "a.safetensors")


def test_an_update_of_rank_zero_is_refused(tmp_path: Path) -> None:
    save_file({DOWN: torch.ones(0, 4), UP: torch.ones(4, 0)}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"do not match"):
        load_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize("text", ["{", "[]", '{"unet.lora_alpha": "x"}'])
def test_metadata_that_does_not_parse_is_refused(tmp_path: Path, text: str) -> None:
    tensors = {DOWN: torch.ones(2, 4), UP: torch.ones(4, 2)}
    save_tensors(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": text})
    with pytest.raises(AdapterError):
        load_adapter(tmp_path / "a.safetensors")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(AdapterError, match=r"cannot be opened"):
            load_adapter(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(pipe: Any, tmp_path: Path) -> None:
    adapter = random_adapter(pipe)
    file = save_adapter(adapter, tmp_path)
    with pytest.raises(Exception, match=r"str"):
        save_tensors({DOWN: torch.ones(2)}, file, {"key": 5})  # type: ignore[dict-item]
    assert same_layers(load_adapter(file), adapter)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    save_tensors({DOWN: torch.ones(2)}, file)
    assert list(load_file(file)) == [DOWN]
    assert file.stat().st_mode & 0o777 == 0o644


def test_settings_of_many_layers_are_parsed_once(tmp_path: Path, monkeypatch: Any) -> None:
    """5,000 layers with a pattern each: parsing them a layer each would be quadratic."""
    layers = [f"down_blocks.0.attentions.{n}.to_q" for n in range(300)]
    patterns = {f"^{layer.replace('.', chr(92) + '.')}$": n + 1 for n, layer in enumerate(layers)}
    stated = json.dumps({"unet.r": 1, "unet.lora_alpha": 7, "unet.alpha_pattern": patterns})
    tensors = {
        f"unet.{layer}.lora_{half}.weight": torch.ones(1, 1) for layer in layers for half in "AB"
    }
    parsed: list[str] = []
    loads = json.loads

    def count(text: str, **options: Any) -> Any:
        parsed.append(text)
        return loads(text, **options)

    monkeypatch.setattr(json, "loads", count)
    read = read_layers(tensors, {"lora_adapter_metadata": stated})
    assert parsed.count(stated) == 1
    assert [read["unet"][layer].alpha for layer in layers] == list(range(1, 301))


@pytest.mark.parametrize("shape", [[1] * 100_000, [10**18], [2**63, 2**63]])
def test_shapes_beyond_any_layer_are_refused(shape: list[int], tmp_path: Path) -> None:
    entries = {"unet.a.lora_A.weight": {"dtype": "X", "shape": shape, "data_offsets": [0, 4]}}
    text = json.dumps(entries).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"1234")
    with pytest.raises(AdapterError, match="is not valid"):
        read_file_header(tmp_path / "a.safetensors")


def test_what_a_model_saved_alone_keeps_its_alpha(tmp_path: Path) -> None:
    """`unet.save_lora_adapter()` of diffusers writes names and settings without the component."""
    from peft import LoraConfig

    unet = small_unet()
    targets = ["to_q"]
    unet.add_adapter(
        LoraConfig(r=4, lora_alpha=16, target_modules=targets, init_lora_weights=False)
    )
    unet.save_lora_adapter(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    adapter = load_adapter(file)
    layers = adapter.layers["unet"].values()
    assert {(layer.rank, layer.alpha) for layer in layers} == {(4, 16.0)}


def small_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


@pytest.mark.parametrize("prefix", ["unet.", "lora_unet_", "diffusion_model.", "base_model.model."])
def test_settings_of_a_stranger_beside_a_file_are_not_applied_to_it(
    prefix: str, tmp_path: Path
) -> None:
    layer = "mid_block.attentions.0.proj_in"
    name = prefix + (layer.replace(".", "_") if prefix.endswith("_") else layer)
    tensors = {f"{name}.lora_{half}.weight": torch.ones(2, 2) for half in ("down", "up")}
    save_file(tensors, tmp_path / "a.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 32}')
    ((_, modules),) = load_adapter(tmp_path / "a.safetensors").layers.items()
    (read,) = modules.values()
    assert read.alpha == (32 if prefix == "base_model.model." else 2)


@pytest.mark.parametrize("kind", ["pissa_niter_4", "PiSSA", "olora", "corda", "loftq"])
def test_a_folder_whose_base_was_changed_too_is_refused(kind: str, tmp_path: Path) -> None:
    stem = "base_model.model.mid_block.attentions.0.proj_in"
    tensors = {f"{stem}.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "init_lora_weights": kind}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=f"{kind}.*path_initial_model"):
        load_adapter(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("name", "component", "layer"),
    [
        (
            "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
            "text_encoder_2",
            "text_model.encoder.layers.0.mlp.fc1",
        ),
        (
            "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
            "text_encoder",
            "text_model.encoder.layers.0.mlp.fc1",
        ),
        (
            "clip_l.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder",
            "text_model.encoder.layers.0.self_attn.q_proj",
        ),
        ("clip_g.text_projection", "text_encoder_2", "text_projection"),
    ],
)
def test_names_of_text_encoders_by_comfyui_and_onetrainer_are_read(
    name: str, component: str, layer: str
) -> None:
    assert parse_name(f"{name}.lora_A.weight") == (component, layer, "down")


def test_names_with_pefts_adapter_in_them_are_read() -> None:
    layer = "down_blocks.0.attentions.0.proj_in"
    parsed = [parse_name(f"unet.{layer}.lora_{half}.default.weight") for half in "AB"]
    assert parsed == [("unet", layer, "down"), ("unet", layer, "up")]
