"""Classes that the components of latent diffusion pipelines may have, as (library, class)."""

from __future__ import annotations

from collections.abc import Mapping

Classes = tuple[tuple[str, str], ...]

_SCHEDULERS = (
    "DDIMInverseScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "IPNDMScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
_TOKENIZERS: Classes = (("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast"))
_TEXT_ENCODERS: Classes = (
    ("transformers", "CLIPTextModel"),
    ("transformers", "CLIPTextModelWithProjection"),
)

COMPONENT_CLASSES: Mapping[str, Classes] = {
    "vae": (("diffusers", "AutoencoderKL"),),
    "text_encoder": _TEXT_ENCODERS,
    "tokenizer": _TOKENIZERS,
    "unet": (("diffusers", "UNet2DConditionModel"),),
    "scheduler": tuple(("diffusers", name) for name in _SCHEDULERS),
}
XL_COMPONENT_CLASSES: Mapping[str, Classes] = {
    **COMPONENT_CLASSES,
    "text_encoder_2": _TEXT_ENCODERS,
    "tokenizer_2": _TOKENIZERS,
}
OPTIONAL_COMPONENT_CLASSES: Mapping[str, Classes] = {
    "image_encoder": (("transformers", "CLIPVisionModelWithProjection"),),
    "feature_extractor": (
        ("transformers", "CLIPImageProcessor"),
        ("transformers", "CLIPFeatureExtractor"),
    ),
}
