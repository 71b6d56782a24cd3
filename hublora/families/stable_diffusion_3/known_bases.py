"""Published base models of Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases
from hublora.families.stable_diffusion_3.speed_adapters import SPEED_ADAPTERS

# As kohya's tools write them: library/sai_model_spec.py.
MEDIUM, MEDIUM_35, LARGE_35 = (
    f"stable-diffusion-3-{version}" for version in ("m", "5-medium", "5-large")
)
_OWNER = "stabilityai/"

KNOWN_BASES = KnownBases(
    architecture_prefix="stable-diffusion-3",
    default_architecture=MEDIUM,
    architectures={
        f"{_OWNER}stable-diffusion-3-medium-diffusers": MEDIUM,
        f"{_OWNER}stable-diffusion-3.5-medium": MEDIUM_35,
        f"{_OWNER}stable-diffusion-3.5-large": LARGE_35,
        f"{_OWNER}stable-diffusion-3.5-large-turbo": LARGE_35,
    },
    short_names={
        "sd3": f"{_OWNER}stable-diffusion-3-medium-diffusers",
        "sd3.5": f"{_OWNER}stable-diffusion-3.5-large",
        "sd3.5-medium": f"{_OWNER}stable-diffusion-3.5-medium",
        "sd3.5-large": f"{_OWNER}stable-diffusion-3.5-large",
    },
    kohya_versions={"sd3": MEDIUM, "sd3-medium": MEDIUM, "sd3.5-large": LARGE_35},
    undistilled={
        f"{_OWNER}stable-diffusion-3.5-large-turbo": f"{_OWNER}stable-diffusion-3.5-large"
    },
    speed_adapters=SPEED_ADAPTERS,
    file_bases={4096: f"{_OWNER}stable-diffusion-3-medium-diffusers"},
)
