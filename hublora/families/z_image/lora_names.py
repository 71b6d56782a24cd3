"""Names of Z-Image's layers in adapter files: the original fuses the attention's inputs.

Source: https://github.com/Tongyi-MAI/Z-Image; diffusers
`_convert_non_diffusers_z_image_lora_to_diffusers`.
"""

from __future__ import annotations

from hublora.families.flow_transformer.blocks import TRANSFORMER_BLOCKS as BLOCKS
from hublora.families.flow_transformer.lora_names import Table, TransformerLoraNames, same

__all__ = ["BLOCKS", "NAMES"]


def _block(name: str) -> Table:
    attention = f"{name}.{{}}.attention"
    return {
        f"{attention}.qkv": tuple(f"{attention}.to_{part}" for part in "qkv"),
        f"{attention}.out": (f"{attention}.to_out.0",),
        **same(*(f"{name}.{{}}.feed_forward.w{part}" for part in "123")),
        **same(f"{name}.{{}}.adaLN_modulation.0"),
    }


NAMES = TransformerLoraNames(
    {
        **_block("layers"),
        **_block("noise_refiner"),
        **_block("context_refiner"),
        "x_embedder": ("all_x_embedder.2-1",),
        "final_layer.linear": ("all_final_layer.2-1.linear",),
        "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
        **same("t_embedder.mlp.0", "t_embedder.mlp.2", "cap_embedder.1"),
    },
    kohya_is_native=False,
)
