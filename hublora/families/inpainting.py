"""Inpainting bases: the same architectures, and the denoiser sees a mask and what surrounds it too.

Sources: https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-inpainting; diffusers'
`StableDiffusionInpaintPipeline` and `StableDiffusionXLInpaintPipeline`.
"""

from __future__ import annotations

from hublora.families.stable_diffusion.family import StableDiffusion
from hublora.families.stable_diffusion_xl.family import StableDiffusionXL


class StableDiffusionInpainting(StableDiffusion):
    """Stable Diffusion 1.x and 2.x for inpainting."""

    name = "stable-diffusion-inpainting"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionInpaintPipeline",)


class StableDiffusionXLInpainting(StableDiffusionXL):
    """Stable Diffusion XL for inpainting."""

    name = "stable-diffusion-xl-inpainting"
    pipeline_classes: tuple[str, ...] = ("StableDiffusionXLInpaintPipeline",)
