"""Original single files of base models: which family one is of, by the names in its header."""

from __future__ import annotations

from collections.abc import Mapping

from hublora.families.base import FileShapes

# What the names of a denoiser's tensors begin with, as ComfyUI's files and the originals have them.
DENOISER_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
# Beginnings of the names of the other components in files of Stable Diffusion.
VAE_PREFIXES = ("first_stage_model.", "vae.")
TEXT_PREFIXES = ("cond_stage_model.", "conditioner.")


def denoiser_shapes(shapes: Mapping[str, tuple[int, ...]]) -> FileShapes:
    """Return name without its prefix -> shape of the denoiser's tensors in a file: those that have
    a prefix, else all."""
    found = {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        for prefix in DENOISER_PREFIXES
        if name.startswith(prefix)
    }
    return found or dict(shapes)
