"""Names of FLUX.1's layers in adapter files: the original fuses attention and MLP.

Source: https://github.com/black-forest-labs/flux, `model.py`; kohya-ss sd-scripts `networks/
lora_flux.py`; diffusers `_convert_bfl_flux_control_lora_to_diffusers`.
"""

from __future__ import annotations

from hublora.families.flow_transformer.blocks import TRANSFORMER_BLOCKS as BLOCKS
from hublora.families.flow_transformer.lora_names import (
    CLIP_PREFIXES,
    Table,
    TransformerLoraNames,
)
from hublora.families.single_file import DENOISER_PREFIXES

__all__ = ["BLOCKS", "FLUX_BLOCKS", "NAMES", "embedder"]

_DOUBLE, _SINGLE = "transformer_blocks.{}", "single_transformer_blocks.{}"

# What Chroma has too.
FLUX_BLOCKS: Table = {
    "double_blocks.{}.img_attn.qkv": tuple(f"{_DOUBLE}.attn.to_{part}" for part in "qkv"),
    "double_blocks.{}.txt_attn.qkv": tuple(f"{_DOUBLE}.attn.add_{part}_proj" for part in "qkv"),
    "double_blocks.{}.img_attn.proj": (f"{_DOUBLE}.attn.to_out.0",),
    "double_blocks.{}.txt_attn.proj": (f"{_DOUBLE}.attn.to_add_out",),
    "double_blocks.{}.img_mlp.0": (f"{_DOUBLE}.ff.net.0.proj",),
    "double_blocks.{}.img_mlp.2": (f"{_DOUBLE}.ff.net.2",),
    "double_blocks.{}.txt_mlp.0": (f"{_DOUBLE}.ff_context.net.0.proj",),
    "double_blocks.{}.txt_mlp.2": (f"{_DOUBLE}.ff_context.net.2",),
    "single_blocks.{}.linear1": (
        *(f"{_SINGLE}.attn.to_{part}" for part in "qkv"),
        f"{_SINGLE}.proj_mlp",
    ),
    "single_blocks.{}.linear2": (f"{_SINGLE}.proj_out",),
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "final_layer.linear": ("proj_out",),
}


def embedder(native: str, layer: str) -> Table:
    """Return the rows of an embedder of two layers."""
    return {
        f"{native}.in_layer": (f"{layer}.linear_1",),
        f"{native}.out_layer": (f"{layer}.linear_2",),
    }


# XLabs's, whose names for attention processors are without `processor` here: of a single block's
# first layer it adapts the rows of the attention alone.
_XLABS: Table = {
    "double_blocks.{}.qkv_lora1": tuple(f"{_DOUBLE}.attn.to_{part}" for part in "qkv"),
    "double_blocks.{}.qkv_lora2": tuple(f"{_DOUBLE}.attn.add_{part}_proj" for part in "qkv"),
    "double_blocks.{}.proj_lora1": (f"{_DOUBLE}.attn.to_out.0",),
    "double_blocks.{}.proj_lora2": (f"{_DOUBLE}.attn.to_add_out",),
    "single_blocks.{}.qkv": tuple(f"{_SINGLE}.attn.to_{part}" for part in "qkv"),
    "single_blocks.{}.proj": (f"{_SINGLE}.proj_out",),
}

NAMES = TransformerLoraNames(
    {
        **FLUX_BLOCKS,
        "double_blocks.{}.img_mod.lin": (f"{_DOUBLE}.norm1.linear",),
        "double_blocks.{}.txt_mod.lin": (f"{_DOUBLE}.norm1_context.linear",),
        "single_blocks.{}.modulation.lin": (f"{_SINGLE}.norm.linear",),
        **embedder("time_in", "time_text_embed.timestep_embedder"),
        **embedder("vector_in", "time_text_embed.text_embedder"),
        **embedder("guidance_in", "time_text_embed.guidance_embedder"),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    },
    kohya_prefixes={"transformer": "lora_unet", "text_encoder": "lora_te1"},
    flat_prefixes={
        "lora_unet_": "transformer",
        "lora_transformer_": "transformer",
        "lycoris_": "transformer",
        "lora_te1_": "text_encoder",
    },
    native_prefixes={**dict.fromkeys(DENOISER_PREFIXES, "transformer"), **CLIP_PREFIXES},
    swapped=("norm_out.linear",),
    aliases=_XLABS,
)
