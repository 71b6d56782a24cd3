"""Published base models of FLUX.1."""

from __future__ import annotations

from hublora.families.flux.speed_adapters import SPEED_ADAPTERS
from hublora.families.known_bases import KnownBases

DEV, SCHNELL, KONTEXT = "flux-1-dev", "flux-1-schnell", "flux-1-kontext-dev"

_DEV = "black-forest-labs/FLUX.1-dev"
_KREA = "black-forest-labs/FLUX.1-Krea-dev"
SCHNELL_BASE = "black-forest-labs/FLUX.1-schnell"

KNOWN_BASES = KnownBases(
    architecture_prefix="flux-1",
    default_architecture=DEV,
    architectures={**dict.fromkeys((_DEV, _KREA), DEV), SCHNELL_BASE: SCHNELL},
    short_names={"flux": _DEV, "flux-dev": _DEV, "flux-krea": _KREA, "flux-schnell": SCHNELL_BASE},
    kohya_versions={"flux1": DEV, "flux1-dev": DEV, "flux1-schnell": SCHNELL},
    undistilled={SCHNELL_BASE: _DEV},
    assistants={SCHNELL_BASE: "ostris/FLUX.1-schnell-training-adapter"},
    speed_adapters=SPEED_ADAPTERS,
    file_bases={4096: _DEV},
)

_KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"

KONTEXT_BASES = KnownBases(
    architecture_prefix="flux-1-kontext",
    default_architecture=KONTEXT,
    architectures={_KONTEXT: KONTEXT},
    short_names={"kontext": _KONTEXT, "flux-kontext": _KONTEXT},
)
