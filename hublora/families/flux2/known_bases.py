"""Published base models of FLUX.2."""

from __future__ import annotations

from hublora.families.known_bases import KnownBases

DEV, KLEIN_4B, KLEIN_9B = "Flux.2-dev", "Flux.2-klein-4b", "Flux.2-klein-9b"

_OWNER = "black-forest-labs/FLUX.2"
_KLEIN = {
    f"{_OWNER}-klein-4B": KLEIN_4B,
    f"{_OWNER}-klein-base-4B": KLEIN_4B,
    f"{_OWNER}-klein-9B": KLEIN_9B,
    f"{_OWNER}-klein-base-9B": KLEIN_9B,
}

_DISTILLED = {f"{_OWNER}-klein-base-{size}": f"{_OWNER}-klein-{size}" for size in ("4B", "9B")}

KNOWN_BASES = KnownBases(
    architecture_prefix="Flux.2-klein",
    default_architecture=KLEIN_4B,
    architectures=_KLEIN,
    short_names={
        "klein": f"{_OWNER}-klein-4B",
        "klein-4b": f"{_OWNER}-klein-4B",
        "klein-9b": f"{_OWNER}-klein-9B",
        "klein-base-4b": f"{_OWNER}-klein-base-4B",
        "klein-base-9b": f"{_OWNER}-klein-base-9B",
    },
    undistilled={distilled: base for base, distilled in _DISTILLED.items()},
    generation=_DISTILLED,
)
DEV_BASES = KnownBases(
    architecture_prefix=DEV,
    architectures={f"{_OWNER}-dev": DEV},
    short_names={"flux2": f"{_OWNER}-dev"},
    file_bases={15360: f"{_OWNER}-dev"},
)
