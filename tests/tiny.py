"""Builds pipelines with random weights, of diffusers' own classes, and folders of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CARD = """---
license: apache-2.0
inference:
  parameters:
    num_inference_steps: 4
    guidance_scale: 2.0
---
# A random pipeline
"""


def save_pipeline(
    folder: Path, *, prediction: str = "epsilon", width: int = 16, inpaints: bool = False
) -> Path:
    """Save a Stable Diffusion pipeline with random weights (64×64 images) and return its folder.

    Args:
        folder: Folder to write.
        prediction: "epsilon", or "v_prediction" with zero terminal SNR.
        width: Channels of the U-Net's first level; adapters of another width do not fit.
        inpaints: Whether the U-Net has 9 input channels, for a mask and masked-image latents too.
    """
    import torch
    from diffusers import (
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(0)
    tokenizer, text_encoder = clip_parts()
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=9 if inpaints else 4,
        out_channels=4,
        block_out_channels=(width, 2 * width),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    (StableDiffusionInpaintPipeline if inpaints else StableDiffusionPipeline)(
        vae=_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def save_xl_pipeline(folder: Path, *, inpaints: bool = False) -> Path:
    """Save a Stable Diffusion XL pipeline with random weights (64×64 images) and return its folder.

    Its components differ where those of SDXL do: the second tokenizer pads with another token, the
    text encoders have widths of their own, and the U-Net is conditioned on sizes and pooled
    embeddings.
    """
    import torch
    from diffusers import (
        StableDiffusionXLInpaintPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(0)
    tokenizer, text_encoder = clip_parts()
    tokenizer_2, text_encoder_2 = clip_parts(width=48, projection=32)
    tokenizer_2.pad_token = "!"
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=9 if inpaints else 4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=32 + 48,
        attention_head_dim=(2, 4),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        norm_num_groups=8,
    )
    (StableDiffusionXLInpaintPipeline if inpaints else StableDiffusionXLPipeline)(
        vae=_vae(),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=_scheduler("epsilon"),
        add_watermarker=False,
    ).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
    )


def _scheduler(prediction: str) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        steps_offset=1,
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction == "v_prediction",
    )


def clip_parts(width: int = 32, projection: int | None = None) -> tuple[Any, Any]:
    """Return a tokenizer and a random CLIP text encoder with 2 blocks.

    Args:
        width: Width of its hidden states, even.
        projection: Width that its pooled output is projected to; none is projected by default.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from tools.tiny_base.tokenizer import new_tokenizer

    tokenizer = new_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=projection or 32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer, (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def save_images(folder: Path, count: int = 6, side: int = 64, height: int | None = None) -> Path:
    """Save an imagefolder of `count` captioned images of noise and return it.

    Args:
        folder: Folder to write.
        count: Number of images.
        side: Width in pixels.
        height: Height in pixels; the width by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(
            0, 256, (height or side, side, 3), dtype=np.uint8
        )
        Image.fromarray(noise).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"a red star number {number}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
