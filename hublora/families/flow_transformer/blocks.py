"""Blocks of diffusers' image transformers."""

from __future__ import annotations

from hublora.families.blocks import Blocks

TRANSFORMER_BLOCKS = Blocks(
    numbered={
        "block": "transformer_blocks",
        "single": "single_transformer_blocks",
        "layer": "layers",
        "noise_refiner": "noise_refiner",
        "context_refiner": "context_refiner",
    },
    single={"text_fusion": "text_fusion"},
)
