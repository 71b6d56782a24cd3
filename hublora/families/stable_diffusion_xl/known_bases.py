"""Published base models of Stable Diffusion XL."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases
from hublora.families.stable_diffusion_xl.speed_adapters import SPEED_ADAPTERS

XL = "stable-diffusion-xl-v1-base"

_BASE = "stabilityai/stable-diffusion-xl-base-1.0"

KNOWN_BASES = KnownBases(
    architecture_prefix="stable-diffusion-xl",
    architectures=dict.fromkeys((_BASE, "stabilityai/sdxl-turbo"), XL),
    short_names={"sdxl": _BASE},
    kohya_versions={"sdxl_base_v0-9": XL, "sdxl_base_v1-0": XL},
    text_widths={2048: XL},  # both text encoders side by side, 768 and 1280
    speed_adapters=SPEED_ADAPTERS,
    file_bases={2048: _BASE},
)
