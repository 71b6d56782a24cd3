"""Names of Krea 2's layers in adapter files.

Source: https://github.com/krea-ai/krea-2; diffusers
`_convert_non_diffusers_krea2_lora_to_diffusers`.
"""

from __future__ import annotations

from hublora.families.flow_transformer.blocks import TRANSFORMER_BLOCKS as BLOCKS
from hublora.families.flow_transformer.lora_names import Table, TransformerLoraNames

__all__ = ["BLOCKS", "NAMES"]

_ATTENTION = {"wq": "to_q", "wk": "to_k", "wv": "to_v", "wo": "to_out.0", "gate": "to_gate"}


def _block(native: str, name: str) -> Table:
    return {
        **{f"{native}.{{}}.attn.{a}": (f"{name}.{{}}.attn.{b}",) for a, b in _ATTENTION.items()},
        **{f"{native}.{{}}.mlp.{a}": (f"{name}.{{}}.ff.{a}",) for a in ("gate", "up", "down")},
    }


NAMES = TransformerLoraNames(
    {
        **_block("blocks", "transformer_blocks"),
        **_block("txtfusion.layerwise_blocks", "text_fusion.layerwise_blocks"),
        **_block("txtfusion.refiner_blocks", "text_fusion.refiner_blocks"),
        "first": ("img_in",),
        "last.linear": ("final_layer.linear",),
        "tmlp.0": ("time_embed.linear_1",),
        "tmlp.2": ("time_embed.linear_2",),
        "tproj.1": ("time_mod_proj",),
        "txtmlp.1": ("txt_in.linear_1",),
        "txtmlp.3": ("txt_in.linear_2",),
        "txtfusion.projector": ("text_fusion.projector",),
    }
)
