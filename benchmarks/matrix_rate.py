"""What a chip can do at most, and what a training step asks of it, in floating point operations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_SIDES = {"cuda": 8192, "cpu": 1536}
_SECONDS = {"cuda": 2.0, "cpu": 1.0}


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Return how many operations a second large square matrix products reach on a device."""
    side = _SIDES[device]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    _wait(device)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS[device]:
        a @ b
        _wait(device)
        done += 1
    return done * 2 * side**3 / (time.perf_counter() - started)


def step_operations(unet: Mapping[str, Any], batch: int, side: int, tokens: int, rank: int) -> int:
    """Return the operations of one training step of a U-Net with an adapter, without its encoders.

    They are counted on shapes alone: nothing is computed, and no memory is used. What gradient
    checkpointing computes twice counts once.

    Args:
        unet: Its configuration.
        batch: Latents.
        side: Of a latent.
        tokens: Of a prompt.
        rank: Of the adapter.
    """
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(dict(unet))
        model.requires_grad_(False)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
        latents = torch.empty(batch, model.config.in_channels, side, side)
        prompt = torch.empty(batch, tokens, model.config.cross_attention_dim)
        added = None
        if model.config.addition_embed_type == "text_time":
            width = model.add_embedding.linear_1.in_features
            pooled = width - 6 * model.config.addition_time_embed_dim
            added = {"text_embeds": torch.empty(batch, pooled), "time_ids": torch.empty(batch, 6)}
        counter = FlopCounterMode(display=False)
        with counter:
            times = torch.zeros(batch)
            model(latents, times, prompt, added_cond_kwargs=added).sample.mean().backward()
    return int(counter.get_total_flops())


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
