"""Names of Qwen-Image's layers in adapter files: everybody uses diffusers' own.

Source: diffusers `_convert_non_diffusers_qwen_lora_to_diffusers`.
"""

from __future__ import annotations

from hublora.families.flow_transformer.blocks import TRANSFORMER_BLOCKS as BLOCKS
from hublora.families.flow_transformer.lora_names import TransformerLoraNames, same

__all__ = ["BLOCKS", "NAMES"]

_BLOCK = "transformer_blocks.{}"

NAMES = TransformerLoraNames(
    {
        **same(*(f"{_BLOCK}.attn.to_{part}" for part in ("q", "k", "v", "out.0", "add_out"))),
        **same(*(f"{_BLOCK}.attn.add_{part}_proj" for part in "qkv")),
        **same(
            *(
                f"{_BLOCK}.{stream}_{part}"
                for stream in ("img", "txt")
                for part in ("mod.1", "mlp.net.0.proj", "mlp.net.2")
            )
        ),
        **same(*(f"time_text_embed.timestep_embedder.linear_{part}" for part in "12")),
        **same("img_in", "txt_in", "norm_out.linear", "proj_out"),
    },
    kohya_is_native=False,
)
