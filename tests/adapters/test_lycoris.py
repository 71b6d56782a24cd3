"""Updates that LyCORIS itself writes are what LyCORIS itself adds: `pip install lycoris-lora`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hublora.adapters.files import load_adapter

pytest.importorskip("lycoris", reason="pip install lycoris-lora")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "loha": ("loha.LohaModule", {}),
    "loha with cores": ("loha.LohaModule", {"use_tucker": True}),
    "loha, rank-stabilised": ("loha.LohaModule", {"rs_lora": True}),
    "lokr": ("lokr.LokrModule", {"factor": 4, "full_matrix": True}),
    "lokr with factors": ("lokr.LokrModule", {"factor": 4, "decompose_both": True}),
    "lokr with cores": ("lokr.LokrModule", {"factor": 4, "use_tucker": True}),
    "locon": ("locon.LoConModule", {}),
    "locon with cores": ("locon.LoConModule", {"use_tucker": True}),
}


@pytest.mark.parametrize("layer", ["linear", "conv"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_lycoris_adds_is_what_is_read(kind: str, layer: str, tmp_path: Path) -> None:
    place, settings = KINDS[kind]
    file, _, name = place.partition(".")
    made = getattr(importlib.import_module(f"lycoris.modules.{file}"), name)
    base = torch.nn.Linear(16, 24) if layer == "linear" else torch.nn.Conv2d(16, 24, 3)
    torch.manual_seed(0)
    module = made("x", base, 1.0, 4, 2.0, **settings)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(5, 16) if layer == "linear" else torch.randn(2, 16, 7, 7)
    with torch.no_grad():
        plain = base(x)
        module.apply_to()  # `forward` is what was trained; `get_diff_weight` scales a LoHa twice
        added = base(x) - plain
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {f"{stem}.{key}": value for key, value in module.state_dict().items()}
    save_file({key: one.contiguous() for key, one in tensors.items()}, tmp_path / "a.safetensors")
    (read,) = load_adapter(tmp_path / "a.safetensors").layers["unet"].values()
    update = (read.scale * read.up.flatten(1) @ read.down.flatten(1)).reshape(base.weight.shape)
    apply = torch.nn.functional.linear if layer == "linear" else torch.nn.functional.conv2d
    assert (apply(x, update) - added).norm() <= (3 * read.error + 1e-4) * added.norm()
    assert read.error <= 0.01
