"""The size of an adapter is what the field expects of its shape."""

from __future__ import annotations

from pathlib import Path

from hublora.adapters.adapter import Adapter
from hublora.adapters.files import read_file_header, save_tensors
from hublora.adapters.layouts import to_diffusers
from hublora.families import FAMILIES
from hublora.training.lora_module import adapt, tuned
from hublora.training.target_layers import find_targets


def test_an_adapter_of_sd_1_5_at_rank_4_is_as_small_as_expected(settings, tmp_path: Path) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):  # the defaults of the class are SD 1.x's, but for the text's width
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, layers_per_block=2
        )
    assert sum(parameter.numel() for parameter in unet.parameters()) == 859_520_964
    chosen = settings(adapter__rank=4).adapter
    ranks = find_targets(chosen, "unet", unet, FAMILIES["stable-diffusion"])
    adapted = adapt(chosen, unet, ranks)
    for _, layer in tuned(unet):
        layer.lora_A.to_empty(device="cpu")
        layer.lora_B.to_empty(device="cpu")
    tensors, metadata = to_diffusers(Adapter({"unet": adapted.read()}))
    save_tensors(tensors, tmp_path / "a.safetensors", metadata)
    header = read_file_header(tmp_path / "a.safetensors")
    assert header.data_bytes == 797_184 * 4
    assert set(header.dtypes.values()) == {"F32"}
    assert (tmp_path / "a.safetensors").stat().st_size <= 3_300_000
