"""What is wrong with a base is one sentence before its weights, or a dataset, are downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hublora
from hublora.errors import AccessError, AdapterError, NotFoundError
from hublora.localhub import add_user, create_token, import_folder
from tests.flow_pipelines import FLOW_PIPELINES
from tests.lora import random_adapter, save_adapter

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def is_cached(repo_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, TRANSFORMER), str)


def gated(hub_data: Path, repo_id: str, folder: Path) -> str:
    """Put a gated repo of somebody else on the Hub."""
    from huggingface_hub import HfApi

    owner = repo_id.split("/")[0]
    add_user(hub_data, owner)
    api = HfApi(token=create_token(hub_data, owner))
    api.create_repo(repo_id)
    api.upload_folder(folder_path=folder, repo_id=repo_id)
    api.update_repo_settings(repo_id, gated="manual")
    return repo_id


def test_a_gated_base_says_where_to_accept_before_anything_else_is_read(
    hub: Any, hub_data: Path, tmp_path: Path
) -> None:
    """The dataset does not exist, which is not found out."""
    FLOW_PIPELINES["flux-schnell"]().save_pretrained(tmp_path / "base")
    base = gated(hub_data, "labs/gated-base", tmp_path / "base")
    config = hublora.TrainingConfig.from_settings(
        {"base.model": base, "data.dataset": "nobody/nothing", "output_dir": tmp_path / "run"}
    )
    for call in (
        lambda: hublora.train(config),
        lambda: hublora.dry_run(config),
        lambda: hublora.load(base=base),
    ):
        with pytest.raises(AccessError, match="is gated") as refused:
            call()
        assert f"{hub.url}/{base}" in str(refused.value)
    assert not is_cached(base)
    pair = config.updated({"base.model": "bases/epsilon", "base.generation": base})
    with pytest.raises(AccessError, match="is gated"):
        hublora.train(pair)


def test_a_tokenizer_without_a_chat_template_is_told(
    hub: object, hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    FLOW_PIPELINES["z-image"]().save_pretrained(folder)
    (folder / "tokenizer" / "chat_template.jinja").unlink()
    import_folder(hub_data, "bases/no-template", folder)
    for base in ("bases/no-template", str(folder)):
        with pytest.raises(NotFoundError, match="has no chat template") as told:
            hublora.load(base=base)
        assert "tokenizer/chat_template.jinja" in str(told.value)
    assert not is_cached("bases/no-template")
    config = folder / "tokenizer" / "tokenizer_config.json"
    stated = {**json.loads(config.read_text()), "chat_template": "{{ messages[0].content }}"}
    config.write_text(json.dumps(stated))
    hublora.load(base=str(folder))


def test_an_adapter_of_another_size_is_refused_by_headers(
    hub: object, hub_data: Path, tmp_path: Path
) -> None:
    """As one of klein 9B on klein 4B."""
    from diffusers import Flux2Transformer2DModel

    pipe = FLOW_PIPELINES["flux2-klein"]()
    pipe.save_pretrained(tmp_path / "small")
    import_folder(hub_data, "bases/klein-small", tmp_path / "small")
    sizes = {**pipe.transformer.config, "num_attention_heads": 3}
    sizes = {key: value for key, value in sizes.items() if not key.startswith("_")}
    pipe.transformer = Flux2Transformer2DModel(**sizes)
    adapter = random_adapter(pipe, {"transformer": ("attn.to_q",)})
    save_adapter(adapter, tmp_path / "adapter", "bases/klein-large")
    with pytest.raises(AdapterError, match=r"\(made for bases/klein-large\) does not fit"):
        hublora.load(str(tmp_path / "adapter"), base="bases/klein-small")
    assert not is_cached("bases/klein-small")
