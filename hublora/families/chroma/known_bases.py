"""Published base models of Chroma."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases

ARCHITECTURE = "chroma"
_BASES = tuple(f"lodestones/Chroma1-{name}" for name in ("HD", "Base", "Flash"))

KNOWN_BASES = KnownBases(
    architecture_prefix=ARCHITECTURE,
    architectures=dict.fromkeys(_BASES, ARCHITECTURE),
    short_names={"chroma": _BASES[0]},
    undistilled={_BASES[2]: _BASES[1]},
    file_bases={4096: _BASES[0]},
)
