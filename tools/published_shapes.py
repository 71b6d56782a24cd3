"""Sizes of published base models, for the memory that docs/families.md states.

Transformers: what their `config.json` says where it differs from the defaults of diffusers' class.
Text encoders: millions of weights in their blocks and outside, by their own configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """A published base model.

    Attributes:
        family: Name in the registry of families.
        transformer: Name of diffusers' class.
        config: Arguments of that class that are not its defaults.
        text: Millions of weights of the largest text encoder, in its blocks and outside.
    """

    family: str
    transformer: str
    config: dict[str, Any]
    text: tuple[int, int]


_T5_XXL, _QWEN3_4B, _QWEN3_8B = (4_630, 132), (3_634, 389), (6_946, 1_245)
_QWEN25_VL_7B, _QWEN3_VL_4B, _MISTRAL3_24B = (7_200, 1_090), (4_040, 400), (22_700, 1_350)

PUBLISHED: dict[str, Published] = {
    "SD3.5 medium": Published(
        "stable-diffusion-3",
        "SD3Transformer2DModel",
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "sample_size": 128,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        _T5_XXL,
    ),
    "SD3.5 large": Published(
        "stable-diffusion-3",
        "SD3Transformer2DModel",
        {
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
            "sample_size": 128,
            "qk_norm": "rms_norm",
        },
        _T5_XXL,
    ),
    "FLUX.1 dev": Published("flux", "FluxTransformer2DModel", {"guidance_embeds": True}, _T5_XXL),
    "FLUX.2 klein 4B": Published(
        "flux2-klein",
        "Flux2Transformer2DModel",
        {
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
        _QWEN3_4B,
    ),
    "FLUX.2 klein 9B": Published(
        "flux2-klein",
        "Flux2Transformer2DModel",
        {
            "num_layers": 8,
            "num_single_layers": 24,
            "num_attention_heads": 32,
            "joint_attention_dim": 12288,
            "guidance_embeds": False,
        },
        _QWEN3_8B,
    ),
    "FLUX.2 dev": Published("flux2", "Flux2Transformer2DModel", {}, _MISTRAL3_24B),
    "Z-Image": Published("z-image", "ZImageTransformer2DModel", {}, _QWEN3_4B),
    "Qwen-Image": Published("qwen-image", "QwenImageTransformer2DModel", {}, _QWEN25_VL_7B),
    "Krea 2": Published("krea2", "Krea2Transformer2DModel", {}, _QWEN3_VL_4B),
    "Chroma": Published("chroma", "ChromaTransformer2DModel", {}, _T5_XXL),
}
