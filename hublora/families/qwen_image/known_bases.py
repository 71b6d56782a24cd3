"""Published base models of Qwen-Image."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases
from hublora.families.qwen_image.speed_adapters import SPEED_ADAPTERS

ARCHITECTURE = "Qwen-Image"
_BASE = "Qwen/Qwen-Image"

KNOWN_BASES = KnownBases(
    architecture_prefix=ARCHITECTURE,
    architectures=dict.fromkeys((_BASE, f"{_BASE}-2512"), ARCHITECTURE),
    short_names={"qwen-image": _BASE},
    speed_adapters=SPEED_ADAPTERS,
    file_bases={3584: _BASE},
)
