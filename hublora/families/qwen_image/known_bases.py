"""Published base models of Qwen-Image."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases
from hublora.families.qwen_image.speed_adapters import SPEED_ADAPTERS

ARCHITECTURE = "Qwen-Image"
EDIT, EDIT_PLUS = f"{ARCHITECTURE}-Edit", f"{ARCHITECTURE}-Edit-Plus"
_BASE = "Qwen/Qwen-Image"

KNOWN_BASES = KnownBases(
    architecture_prefix=ARCHITECTURE,
    architectures=dict.fromkeys((_BASE, f"{_BASE}-2512"), ARCHITECTURE),
    short_names={"qwen-image": _BASE},
    speed_adapters=SPEED_ADAPTERS,
    file_bases={3584: _BASE},
)
EDIT_BASES = KnownBases(
    architecture_prefix=EDIT,
    architectures={f"{_BASE}-Edit": EDIT},
    short_names={"qwen-image-edit": f"{_BASE}-Edit"},
)
EDIT_PLUS_BASES = KnownBases(
    architecture_prefix=EDIT_PLUS,
    architectures=dict.fromkeys((f"{_BASE}-Edit-2509", f"{_BASE}-Edit-2511"), EDIT_PLUS),
    short_names={
        "qwen-image-edit-plus": f"{_BASE}-Edit-2511",
        "qwen-image-edit-2509": f"{_BASE}-Edit-2509",
        "qwen-image-edit-2511": f"{_BASE}-Edit-2511",
    },
)
