"""Bases of flow-matching families in their published sizes, with random weights, for `train.py`.

Transformer, VAE and scheduler have the real configuration. Of a text encoder only the width of its
output is real: its blocks are few or narrow, so that what is cached has the right shape and what is
not trained takes neither memory nor time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from train_inputs import SD15_TEXT, SD15_VAE, long_tokenizer

from tests import flow_parts as parts
from tests.flow_pipelines import FLOW_PIPELINES

FLUX_VAE: dict[str, Any] = SD15_VAE | {
    "sample_size": 1024,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
SD3_VAE = FLUX_VAE | {"scaling_factor": 1.5305, "shift_factor": 0.0609}
CLIP: dict[str, Any] = SD15_TEXT | {"num_hidden_layers": 2}
CLIP_G = CLIP | {"hidden_size": 1280, "projection_dim": 1280, "num_attention_heads": 20}


def z_image(blocks: int | None) -> Any:
    """Return Z-Image: 30 blocks, 6.2 billion weights."""
    from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel

    tokenizer = parts.qwen_tokenizer(parts.CHAT_TEMPLATE)
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(n_layers=blocks or 30)
    return ZImagePipeline(
        scheduler=parts.scheduler(6.0),
        vae=AutoencoderKL(**FLUX_VAE),
        text_encoder=parts.qwen3(tokenizer, width=2560, layers=2),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def klein_4b(blocks: int | None) -> Any:
    """Return FLUX.2 klein base 4B: 5 double and 20 single blocks."""
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel

    tokenizer = parts.qwen_tokenizer(parts.CHAT_TEMPLATE)
    with torch.device("meta"):
        transformer = Flux2Transformer2DModel(
            num_layers=blocks or 5,
            num_single_layers=blocks or 20,
            num_attention_heads=24,
            joint_attention_dim=7680,
            guidance_embeds=False,
        )
    return Flux2KleinPipeline(
        scheduler=parts.scheduler(3.0, longest=4096),
        vae=AutoencoderKLFlux2(),
        text_encoder=parts.qwen3(tokenizer, width=2560, layers=28, head=True),
        tokenizer=tokenizer,
        transformer=transformer,
        is_distilled=False,
    )


def flux1(blocks: int | None) -> Any:
    """Return FLUX.1 dev: 19 double and 38 single blocks, 12 billion weights."""
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel

    tokenizer, text_encoder = _clip(CLIP, projection=False)
    tokenizer_2 = parts.t5_tokenizer()
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(
            num_layers=blocks or 19, num_single_layers=blocks or 38, guidance_embeds=True
        )
    return FluxPipeline(
        scheduler=parts.scheduler(3.0, longest=4096),
        vae=AutoencoderKL(**FLUX_VAE),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=parts.t5_encoder(tokenizer_2, width=4096),
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )


def qwen(blocks: int | None) -> Any:
    """Return Qwen-Image: 60 blocks, 20 billion weights."""
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel

    tokenizer = parts.qwen_tokenizer()
    with torch.device("meta"):
        transformer = QwenImageTransformer2DModel(num_layers=blocks or 60)
    return QwenImagePipeline(
        scheduler=parts.scheduler(1.0, longest=8192, max_shift=0.9, shift_terminal=0.02),
        vae=AutoencoderKLQwenImage(),
        text_encoder=_qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def krea2(blocks: int | None) -> Any:
    """Return Krea 2 Raw: 28 blocks, 12 billion weights."""
    from diffusers import AutoencoderKLQwenImage, Krea2Pipeline, Krea2Transformer2DModel

    tokenizer = parts.qwen_tokenizer()
    with torch.device("meta"):
        transformer = Krea2Transformer2DModel(num_layers=blocks or 28)
    return Krea2Pipeline(
        scheduler=parts.scheduler(1.0, longest=6400),
        vae=AutoencoderKLQwenImage(),
        text_encoder=parts.qwen3_vl(tokenizer, width=2560, layers=36),
        tokenizer=tokenizer,
        transformer=transformer,
        is_distilled=False,
    )


def sd3(blocks: int | None) -> Any:
    """Return Stable Diffusion 3.5 medium: 24 blocks, 13 of which attend twice."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, text_encoder = _clip(CLIP, projection=True)
    tokenizer_2, text_encoder_2 = _clip(CLIP_G, projection=True)
    tokenizer_3 = parts.t5_tokenizer()
    count = blocks or 24
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(
            num_layers=count,
            num_attention_heads=24,
            caption_projection_dim=1536,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(min(13, count))),
            qk_norm="rms_norm",
        )
    return StableDiffusion3Pipeline(
        scheduler=parts.scheduler(3.0),
        vae=AutoencoderKL(**SD3_VAE),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        text_encoder_3=parts.t5_encoder(tokenizer_3, width=4096),
        tokenizer_3=tokenizer_3,
        transformer=transformer,
    )


FLOW_BASES: dict[str, Callable[[int | None], Any]] = {
    "z-image": z_image,
    "klein-4b": klein_4b,
    "flux1": flux1,
    "qwen": qwen,
    "krea2": krea2,
    "sd3": sd3,
}
"""Pipelines by the shape of `train.py`; the argument is the number of blocks, None for all."""

TINY = {
    "z-image": "z-image",
    "klein-4b": "flux2-klein",
    "flux1": "flux-dev",
    "qwen": "qwen-image",
    "krea2": "krea2",
    "sd3": "sd3",
}
"""Shape -> the tiny pipeline of the same family."""


def save_flow_base(shape: str, folder: Path, blocks: int | None = None) -> Path:
    """Save a pipeline with random weights in bfloat16 and return its folder.

    The transformer's weights are made on the GPU where there is one.

    Args:
        shape: Key of `FLOW_BASES`.
        folder: Folder to write.
        blocks: Number of blocks of each kind; None for all.
    """
    torch.manual_seed(0)
    pipe = FLOW_BASES[shape](blocks)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformer = pipe.transformer.to(torch.bfloat16).to_empty(device=device)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            is_norm = parameter.ndim == 1 and "norm" in name and name.endswith("weight")
            parameter.fill_(1.0) if is_norm else parameter.normal_(std=0.02)
        for buffer in transformer.buffers():  # of those that are saved, positions of patches
            buffer.normal_(std=0.02)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name not in ("transformer", "vae"):
            part.to(torch.bfloat16)
    pipe.save_pretrained(folder)
    return folder


def save_tiny_flow_base(shape: str, folder: Path) -> Path:
    """Save the tiny pipeline of a shape's family, whose CLIPs read 77 tokens, as scripts want."""
    pipe = with_long_clips(FLOW_PIPELINES[TINY[shape]]())
    pipe.save_pretrained(folder)
    return folder


def with_long_clips(pipe: Any) -> Any:
    """Return the pipeline with CLIPs of random weights that read 77 tokens."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(2)
    for component, model in pipe.components.items():
        if isinstance(model, CLIPTextModel | CLIPTextModelWithProjection):
            config = model.config
            config.max_position_embeddings = SD15_TEXT["max_position_embeddings"]
            pipe.register_modules(**{component: type(model)(config)})
            tokenizer = getattr(pipe, component.replace("text_encoder", "tokenizer"))
            tokenizer.model_max_length = config.max_position_embeddings
    return pipe


def _clip(config: dict[str, Any], *, projection: bool) -> tuple[Any, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = long_tokenizer()
    markers = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return tokenizer, kind(CLIPTextConfig(**config, **markers))


def _qwen25_vl(tokenizer: Any) -> Any:
    """Return a text encoder of one block and the width of Qwen2.5-VL 7B."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 3584,
        "intermediate_size": 56,
        "num_hidden_layers": 1,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]},
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    )
