"""Names of FLUX.2's layers in adapter files.

Source: https://github.com/black-forest-labs/flux2; diffusers
`_convert_non_diffusers_flux2_lora_to_diffusers`.
"""

from __future__ import annotations

from hublora.families.flow_transformer.blocks import TRANSFORMER_BLOCKS as BLOCKS
from hublora.families.flow_transformer.lora_names import TransformerLoraNames
from hublora.families.flux.lora_names import embedder

__all__ = ["BLOCKS", "NAMES"]

_DOUBLE, _SINGLE = "transformer_blocks.{}", "single_transformer_blocks.{}"
_MODULATIONS = (
    *("double_stream_modulation_img", "double_stream_modulation_txt"),
    "single_stream_modulation",
)

NAMES = TransformerLoraNames(
    {
        "double_blocks.{}.img_attn.qkv": tuple(f"{_DOUBLE}.attn.to_{part}" for part in "qkv"),
        "double_blocks.{}.txt_attn.qkv": tuple(f"{_DOUBLE}.attn.add_{part}_proj" for part in "qkv"),
        "double_blocks.{}.img_attn.proj": (f"{_DOUBLE}.attn.to_out.0",),
        "double_blocks.{}.txt_attn.proj": (f"{_DOUBLE}.attn.to_add_out",),
        "double_blocks.{}.img_mlp.0": (f"{_DOUBLE}.ff.linear_in",),
        "double_blocks.{}.img_mlp.2": (f"{_DOUBLE}.ff.linear_out",),
        "double_blocks.{}.txt_mlp.0": (f"{_DOUBLE}.ff_context.linear_in",),
        "double_blocks.{}.txt_mlp.2": (f"{_DOUBLE}.ff_context.linear_out",),
        "single_blocks.{}.linear1": (f"{_SINGLE}.attn.to_qkv_mlp_proj",),
        "single_blocks.{}.linear2": (f"{_SINGLE}.attn.to_out",),
        **{f"{name}.lin": (f"{name}.linear",) for name in _MODULATIONS},
        **embedder("time_in", "time_guidance_embed.timestep_embedder"),
        **embedder("guidance_in", "time_guidance_embed.guidance_embedder"),
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "final_layer.linear": ("proj_out",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    },
    swapped=("norm_out.linear",),
)
