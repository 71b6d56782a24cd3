"""Blocks of diffusers' `UNet2DConditionModel`."""

from __future__ import annotations

from hublora.families.blocks import Blocks

UNET_BLOCKS = Blocks(
    numbered={"down": "down_blocks", "up": "up_blocks"}, single={"mid": "mid_block"}
)
