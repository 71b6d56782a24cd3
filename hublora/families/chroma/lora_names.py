"""Names of Chroma's layers in adapter files: FLUX.1's, with one network for all modulations.

Source: diffusers `convert_chroma_transformer_checkpoint_to_diffusers`.
"""

from __future__ import annotations

from hublora.families.flow_transformer.blocks import TRANSFORMER_BLOCKS as BLOCKS
from hublora.families.flow_transformer.lora_names import TransformerLoraNames
from hublora.families.flux.lora_names import FLUX_BLOCKS

__all__ = ["BLOCKS", "NAMES"]

_GUIDANCE = "distilled_guidance_layer"

NAMES = TransformerLoraNames(
    {
        **FLUX_BLOCKS,
        f"{_GUIDANCE}.in_proj": (f"{_GUIDANCE}.in_proj",),
        f"{_GUIDANCE}.out_proj": (f"{_GUIDANCE}.out_proj",),
        f"{_GUIDANCE}.layers.{{}}.in_layer": (f"{_GUIDANCE}.layers.{{}}.linear_1",),
        f"{_GUIDANCE}.layers.{{}}.out_layer": (f"{_GUIDANCE}.layers.{{}}.linear_2",),
    }
)
