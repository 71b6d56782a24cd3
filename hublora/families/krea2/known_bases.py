"""Published base models of Krea 2."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases

ARCHITECTURE = "krea-2"
_RAW, _TURBO = "krea/Krea-2-Raw", "krea/Krea-2-Turbo"

KNOWN_BASES = KnownBases(
    architecture_prefix=ARCHITECTURE,
    architectures=dict.fromkeys((_RAW, _TURBO), ARCHITECTURE),
    short_names={"krea2": _RAW, "krea2-turbo": _TURBO},
    undistilled={_TURBO: _RAW},
    generation={_RAW: _TURBO},
)
