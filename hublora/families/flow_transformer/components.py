"""Classes that the components of flow-matching pipelines may have, as (library, class)."""

from __future__ import annotations

from collections.abc import Mapping

Classes = tuple[tuple[str, str], ...]

SCHEDULER: Classes = (("diffusers", "FlowMatchEulerDiscreteScheduler"),)
VAE: Classes = (("diffusers", "AutoencoderKL"),)
QWEN_VAE: Classes = (("diffusers", "AutoencoderKLQwenImage"),)
CLIP: Classes = (("transformers", "CLIPTextModel"), ("transformers", "CLIPTextModelWithProjection"))
CLIP_TOKENIZER: Classes = (
    ("transformers", "CLIPTokenizer"),
    ("transformers", "CLIPTokenizerFast"),
)
T5: Classes = (("transformers", "T5EncoderModel"),)
T5_TOKENIZER: Classes = (("transformers", "T5Tokenizer"), ("transformers", "T5TokenizerFast"))
QWEN_TOKENIZER: Classes = (
    ("transformers", "Qwen2Tokenizer"),
    ("transformers", "Qwen2TokenizerFast"),
)


def transformer(name: str) -> Classes:
    """Return the denoiser of a family: diffusers' class of that name."""
    return (("diffusers", name),)


def pipeline_components(denoiser: str, **others: Classes) -> Mapping[str, Classes]:
    """Return component -> classes of a pipeline with a scheduler, a denoiser and others."""
    return {"scheduler": SCHEDULER, "transformer": transformer(denoiser), **others}
