"""What `train.py` trains on: bases with random weights, and a folder of drawn images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tools.tiny_base.captions import full_caption
from tools.tiny_base.make_base import BASE
from tools.tiny_base.scenes import draw, random_scene

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD15_VAE: dict[str, Any] = {
    "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
SD15_TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_VAE = SD15_VAE | {"sample_size": 1024, "scaling_factor": 0.13025}
SDXL_TEXT_2: dict[str, Any] = SD15_TEXT | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}
# The same parts with the same names at a size that a CPU trains in seconds.
SMALL_UNET = SDXL_UNET | {
    "sample_size": 8,
    "block_out_channels": (32, 32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 64 + 96,
    "attention_head_dim": (2, 2, 4),
    "transformer_layers_per_block": (1, 1, 2),
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 96,
}
SMALL_VAE = SDXL_VAE | {"sample_size": 64, "block_out_channels": (32, 32, 32, 32)}
SMALL_TEXT: dict[str, Any] = SD15_TEXT | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "projection_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SMALL_TEXT_2 = SMALL_TEXT | {"hidden_size": 96, "projection_dim": 96}
SD15_SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


def tiny_base(folder: Path) -> Path:
    """Return the folder of the demo's base; of its architecture, untrained, if there is none."""
    from tools.tiny_base.base_autoencoder import new_autoencoder
    from tools.tiny_base.base_denoiser import Denoiser
    from tools.tiny_base.make_base import save_pipeline
    from tools.tiny_base.tokenizer import new_tokenizer

    if (BASE / "model_index.json").is_file():
        return BASE
    torch.manual_seed(0)
    save_pipeline(new_autoencoder(), Denoiser(new_tokenizer()), folder)
    return folder


def sd15_base(folder: Path) -> Path:
    """Save a pipeline of Stable Diffusion 1.5's configuration, untrained, and return its folder.

    The weights take 4.3 GB; only the vocabulary is the demo's.
    """
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = long_tokenizer()
    markers = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    StableDiffusionPipeline(
        vae=AutoencoderKL(**SD15_VAE),
        text_encoder=CLIPTextModel(CLIPTextConfig(**SD15_TEXT, **markers)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**SD15_UNET),
        scheduler=PNDMScheduler(**SD15_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def sdxl_base(folder: Path) -> Path:
    """Save a pipeline of Stable Diffusion XL's configuration, untrained, and return its folder.

    The weights take 7 GB, in half precision.
    """
    parts = (SDXL_UNET, SDXL_VAE, SD15_TEXT, SDXL_TEXT_2)
    return _save_xl(folder, *parts, dtype=torch.float16)


def tiny_xl_base(folder: Path) -> Path:
    """Save a pipeline with the parts of Stable Diffusion XL, small, and return its folder."""
    return _save_xl(folder, SMALL_UNET, SMALL_VAE, SMALL_TEXT, SMALL_TEXT_2, dtype=torch.float32)


def _save_xl(
    folder: Path,
    unet: dict[str, Any],
    vae: dict[str, Any],
    text: dict[str, Any],
    text_2: dict[str, Any],
    dtype: torch.dtype,
) -> Path:
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer = long_tokenizer()
    markers = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(**vae),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text, **markers)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text_2, **markers)),
        tokenizer=tokenizer,
        tokenizer_2=long_tokenizer(),
        unet=UNet2DConditionModel(**unet),
        scheduler=EulerDiscreteScheduler(**SD15_SCHEDULE),
        add_watermarker=False,
    ).to(dtype).save_pretrained(folder)
    return folder


def long_tokenizer() -> CLIPTokenizer:
    from tools.tiny_base.tokenizer import new_tokenizer

    tokenizer = new_tokenizer()
    tokenizer.model_max_length = SD15_TEXT["max_position_embeddings"]
    return tokenizer


def save_images(folder: Path, count: int, side: int) -> Path:
    """Draw `count` captioned square scenes into an imagefolder and return it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        scene = random_scene(rng)
        name = f"{number:03}.png"
        draw(scene).resize((side, side)).save(folder / name)
        rows.append({"file_name": name, "text": full_caption(scene)})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
