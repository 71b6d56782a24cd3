"""Published base models of Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases
from hublora.families.stable_diffusion.speed_adapters import SPEED_ADAPTERS

V1, V2 = "stable-diffusion-v1", "stable-diffusion-v2"
V1_WIDTH, V2_WIDTH = 768, 1024  # of the embeddings of CLIP ViT-L and of OpenCLIP ViT-H

_V1_5 = "stable-diffusion-v1-5/stable-diffusion-v1-5"

KNOWN_BASES = KnownBases(
    architecture_prefix="stable-diffusion-v",
    architectures={
        **dict.fromkeys(
            (_V1_5, "runwayml/stable-diffusion-v1-5", "CompVis/stable-diffusion-v1-4"), V1
        ),
        **dict.fromkeys(("stabilityai/stable-diffusion-2", "stabilityai/stable-diffusion-2-1"), V2),
    },
    short_names={"sd15": _V1_5, "sd1.5": _V1_5},
    kohya_versions={"sd_v1": V1, "sd_v2": V2, "sd_v2_v": V2},
    text_widths={V1_WIDTH: V1, V2_WIDTH: V2},
    speed_adapters=SPEED_ADAPTERS,
    file_bases={V1_WIDTH: _V1_5},
)
