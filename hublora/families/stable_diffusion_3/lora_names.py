"""Names of Stable Diffusion 3's layers in adapter files: Stability's own fuse attention's inputs.

Source: https://github.com/Stability-AI/sd3.5, `mmditx.py`; diffusers
`convert_sd3_transformer_checkpoint_to_diffusers`; kohya-ss sd-scripts `networks/lora_sd3.py`.
"""

from __future__ import annotations

from hublora.families.flow_transformer.blocks import TRANSFORMER_BLOCKS as BLOCKS
from hublora.families.flow_transformer.lora_names import (
    CLIP_PREFIXES,
    Table,
    TransformerLoraNames,
)
from hublora.families.single_file import DENOISER_PREFIXES

__all__ = ["BLOCKS", "NAMES"]

_BLOCK = "transformer_blocks.{}"


def _embedder(native: str, layer: str) -> Table:
    return {
        f"{native}.mlp.0": (f"{layer}.linear_1",),
        f"{native}.mlp.2": (f"{layer}.linear_2",),
    }


NAMES = TransformerLoraNames(
    {
        "joint_blocks.{}.x_block.attn.qkv": tuple(f"{_BLOCK}.attn.to_{part}" for part in "qkv"),
        "joint_blocks.{}.x_block.attn2.qkv": tuple(f"{_BLOCK}.attn2.to_{part}" for part in "qkv"),
        "joint_blocks.{}.context_block.attn.qkv": tuple(
            f"{_BLOCK}.attn.add_{part}_proj" for part in "qkv"
        ),
        "joint_blocks.{}.x_block.attn.proj": (f"{_BLOCK}.attn.to_out.0",),
        "joint_blocks.{}.x_block.attn2.proj": (f"{_BLOCK}.attn2.to_out.0",),
        "joint_blocks.{}.context_block.attn.proj": (f"{_BLOCK}.attn.to_add_out",),
        "joint_blocks.{}.x_block.mlp.fc1": (f"{_BLOCK}.ff.net.0.proj",),
        "joint_blocks.{}.x_block.mlp.fc2": (f"{_BLOCK}.ff.net.2",),
        "joint_blocks.{}.context_block.mlp.fc1": (f"{_BLOCK}.ff_context.net.0.proj",),
        "joint_blocks.{}.context_block.mlp.fc2": (f"{_BLOCK}.ff_context.net.2",),
        "joint_blocks.{}.x_block.adaLN_modulation.1": (f"{_BLOCK}.norm1.linear",),
        "joint_blocks.{}.context_block.adaLN_modulation.1": (f"{_BLOCK}.norm1_context.linear",),
        **_embedder("t_embedder", "time_text_embed.timestep_embedder"),
        **_embedder("y_embedder", "time_text_embed.text_embedder"),
        "x_embedder.proj": ("pos_embed.proj",),
        "context_embedder": ("context_embedder",),
        "final_layer.linear": ("proj_out",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    },
    kohya_prefixes={
        "transformer": "lora_unet",
        "text_encoder": "lora_te1",
        "text_encoder_2": "lora_te2",
    },
    flat_prefixes={
        "lora_unet_": "transformer",
        "lora_transformer_": "transformer",
        "lycoris_": "transformer",
        "lora_te1_": "text_encoder",
        "lora_te2_": "text_encoder_2",
    },
    native_prefixes={**dict.fromkeys(DENOISER_PREFIXES, "transformer"), **CLIP_PREFIXES},
    swapped=("norm_out.linear",),
    swapped_pairs=(f"{_BLOCK}.norm1_context.linear",),  # of the last block
)
