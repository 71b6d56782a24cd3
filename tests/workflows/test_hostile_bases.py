"""Bases that name code, pickles or sizes: refused before diffusers opens them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hublora
from hublora.errors import AdapterError, HubloraError, NotFoundError
from hublora.localhub import import_folder
from hublora.refs import BaseRef
from hublora.resolution.base import download_base, resolve_base

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Opened:
    """An object whose unpickling leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture
def base(bases: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bases / "epsilon", tmp_path / "base"))


def edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def load(folder: Path) -> Any:
    return download_base(resolve_base(BaseRef.parse(str(folder)))).load(torch.float32)


def move_into_shards(folder: Path, stem: str, shard: str) -> None:
    """Replace a model's weights by an index that names one shard."""
    weights = folder / f"{stem}.safetensors"
    weights.rename(folder / "kept.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"conv_in.weight": shard}}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("component", "stem"),
    [("unet", "diffusion_pytorch_model"), ("text_encoder", "model"), ("vae", WEIGHTS[:-12])],
)
@pytest.mark.parametrize("shard", ["weights.txt", "../weights.txt", "../../x.safetensors"])
def test_an_index_that_names_other_files_is_refused(
    base: Path, tmp_path: Path, component: str, stem: str, shard: str
) -> None:
    move_into_shards(base / component, stem, shard)
    target = base / component / shard
    target.write_bytes(pickle.dumps(Opened(tmp_path / "opened")))
    with pytest.raises(AdapterError, match=r"only \.safetensors files beside it are opened"):
        load(base)
    assert not (tmp_path / "opened").exists()


def test_a_base_on_the_hub_that_names_a_pickle_is_refused(base: Path, hub_data: Path) -> None:
    move_into_shards(base / "unet", "diffusion_pytorch_model", "weights.txt")
    torch.save({}, base / "unet" / "weights.txt")
    import_folder(hub_data, "hostile/pickle", base)
    with pytest.raises(AdapterError, match=r"weights\.txt"):
        hublora.load(base="hostile/pickle", device="cpu")


def test_a_sharded_base_loads(base: Path) -> None:
    from safetensors.torch import load_file

    folder = base / "unet"
    names = list(load_file(folder / WEIGHTS))
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    (folder / WEIGHTS).rename(folder / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert load(base).unet.config.in_channels == 4


def test_weights_without_the_header_of_safetensors_are_refused(base: Path, tmp_path: Path) -> None:
    weights = base / "unet" / WEIGHTS
    weights.write_bytes(pickle.dumps(Opened(tmp_path / "opened")))
    with pytest.raises(AdapterError, match="not a safetensors file"):
        load(base)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("component", "kind"),
    [
        ("unet", ["diffusers", "UNet1DModel"]),
        ("unet", ["os", "UNet2DConditionModel"]),
        ("unet", ["unet", "Mine"]),
        ("scheduler", ["subprocess", "Popen"]),
        ("scheduler", ["diffusers", "DiffusionPipeline"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("text_encoder", ["transformers", "AutoModel"]),
        ("text_encoder", ["transformers", "CLIPTextModel", "more"]),
        ("vae", ["diffusers", "FlashPackAutoencoderKL"]),
        ("image_encoder", ["transformers", "AutoModel"]),
        ("another", ["diffusers", "UNet2DConditionModel"]),
    ],
)
def test_only_the_family_s_own_classes_are_loaded(base: Path, component: str, kind: Any) -> None:
    edit(base / "model_index.json", **{component: kind})
    (base / component).mkdir(exist_ok=True)
    (base / component / f"{kind[0]}.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(AdapterError, match=f"The {component} of base is of the class"):
        load(base)


@pytest.mark.parametrize("kind", ["", "XL"])
def test_code_in_the_place_of_a_class_is_refused(kind: str, bases: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases / ("xl" if kind else "epsilon"), tmp_path / "base"))
    (folder / "scheduler" / "diffusers.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(AdapterError, match=r"diffusers\.py is code"):
        load(folder)


def test_a_pipeline_class_from_a_file_is_refused(base: Path) -> None:
    (base / "mine.py").write_text("raise SystemExit('it ran')")
    edit(base / "model_index.json", _class_name=["mine", "StableDiffusionPipeline"])
    with pytest.raises(AdapterError, match="belongs to no family"):
        load(base)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.A", None]}}),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "a.A"}}),
        ("text_encoder/config.json", {"transformers_weights": "adapter_model.bin"}),
        ("text_encoder/config.json", {"quantization_config": {"quant_method": "gptq"}}),
        ("text_encoder/config.json", {"text_config": {"auto_map": {"AutoModel": "a.A"}}}),
        ("text_encoder/config.json", {"attn_implementation": "me/kernels"}),
        ("text_encoder/config.json", {"_attn_implementation": {"": "me/kernels"}}),
        ("text_encoder/adapter_config.json", {"base_model_name_or_path": "me/other"}),
        ("unet/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
        ("model_index.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
    ],
)
def test_configs_that_bring_code_are_refused(base: Path, file: str, values: Any) -> None:
    edit(base / file, **values)
    with pytest.raises(AdapterError, match=Path(file).name.replace(".", r"\.")):
        load(base)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"block_out_channels": [10**9, 10**9]}),
        ("unet/config.json", {"block_out_channels": [2**19, 2**19]}),
        ("unet/config.json", {"layers_per_block": 10**5}),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 10**4}),
        ("unet/config.json", {"cross_attention_dim": 2**20}),
        ("unet/config.json", {"transformer_layers_per_block": [500, [500, 10**4]]}),
        ("vae/config.json", {"latent_channels": 2**20}),
        ("vae/config.json", {"layers_per_block": 10**6}),
        ("vae/config.json", {"norm_num_groups": 0}),
        ("text_encoder/config.json", {"vocab_size": 10**9}),
        ("text_encoder/config.json", {"vocab_size": 2**20}),
        ("text_encoder/config.json", {"num_hidden_layers": 2**20}),
        ("text_encoder/config.json", {"max_position_embeddings": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**10}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 10**10}),
    ],
)
def test_sizes_are_refused_before_memory_is_taken(base: Path, file: str, values: Any) -> None:
    edit(base / file, **values)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError, match=r"states|asks for|No model can be made"):
            load(base)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model_index.json", "[" * 100_000),
        ("unet/config.json", "[" * 100_000),
        ("unet/config.json", "[]"),
        ("unet/config.json", "{" + " " * (2 << 20) + "}"),
        ("text_encoder/config.json", "\x00"),
        (f"unet/{WEIGHTS}.index.json", '{"weight_map": []}'),
        ("scheduler/scheduler_config.json", '{"num_train_timesteps": "many"}'),
        ("scheduler/scheduler_config.json", '{"beta_schedule": {}}'),
    ],
)
def test_json_that_is_none_is_one_sentence(base: Path, file: str, text: str) -> None:
    (base / file).write_text(text)
    with pytest.raises(HubloraError) as raised:
        load(base)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_component_that_is_missing_is_named(base: Path, component: str) -> None:
    index = json.loads((base / "model_index.json").read_text())
    del index[component]
    (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(NotFoundError, match=f"has no {component}"):
        load(base)


def test_a_controlnet_that_names_a_pickle_is_refused(
    publish_controlnet: Callable[[Callable[[Path], None]], str],
) -> None:
    from hublora.resolution.controlnet_ip_adapter import load_controlnet

    def harm(folder: Path) -> None:
        move_into_shards(folder, "diffusion_pytorch_model", "weights.txt")
        torch.save({}, folder / "weights.txt")

    with pytest.raises(AdapterError, match=r"weights\.txt"):
        load_controlnet(publish_controlnet(harm))
    with pytest.raises(AdapterError, match=r"asks for|states"):
        load_controlnet(
            publish_controlnet(lambda f: edit(f / "config.json", cross_attention_dim=2**20))
        )


@pytest.fixture
def publish_controlnet(
    bases: Path, hub_data: Path, tmp_path: Path
) -> Callable[[Callable[[Path], None]], str]:
    from diffusers import ControlNetModel, UNet2DConditionModel

    done: list[str] = []

    def publish(harm: Callable[[Path], None]) -> str:
        unet = UNet2DConditionModel.from_pretrained(bases / "epsilon", subfolder="unet")
        folder = tmp_path / f"control{len(done)}"
        ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(8, 8, 8, 8)
        ).save_pretrained(folder)
        harm(folder)
        name = f"hostile/control{len(done)}"
        import_folder(hub_data, name, folder)
        done.append(name)
        return name

    return publish


def test_an_ip_adapter_in_a_pickle_is_refused(tmp_path: Path) -> None:
    from hublora.resolution.controlnet_ip_adapter import download_ip_adapter

    (tmp_path / "image_encoder").mkdir()
    (tmp_path / "image_encoder" / "model.safetensors").write_bytes(b"")
    for name in ("ip.bin", "ip.safetensors"):
        torch.save({}, tmp_path / name)
        with pytest.raises(HubloraError, match="safetensors"):
            download_ip_adapter(str(tmp_path / name))


def test_a_captioning_model_with_code_is_refused(tmp_path: Path) -> None:
    from hublora.data.captioner import Captioner

    edit(tmp_path / "config.json", model_type="blip", auto_map={"AutoModel": "a.A"})
    with pytest.raises(AdapterError, match="auto_map"):
        Captioner(tmp_path)
