"""Published base models of Z-Image."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases

ARCHITECTURE = "Z-Image"
_BASE = "Tongyi-MAI/Z-Image"
_TURBO = "Tongyi-MAI/Z-Image-Turbo"
_ASSISTANT = "ostris/zimage_turbo_training_adapter/zimage_turbo_training_adapter_v2.safetensors"

KNOWN_BASES = KnownBases(
    architecture_prefix=ARCHITECTURE,
    architectures=dict.fromkeys((_BASE, _TURBO), ARCHITECTURE),
    short_names={"z-image": _BASE, "z-image-turbo": _TURBO},
    undistilled={_TURBO: _BASE},
    assistants={_TURBO: _ASSISTANT},
    generation={_BASE: _TURBO},
)
