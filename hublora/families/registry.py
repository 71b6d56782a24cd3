"""The families there are, and which one a base belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hublora.errors import AdapterError
from hublora.families.base import Family
from hublora.families.inpainting import StableDiffusionInpainting, StableDiffusionXLInpainting
from hublora.families.stable_diffusion.family import StableDiffusion
from hublora.families.stable_diffusion_xl.family import StableDiffusionXL

_ALL: tuple[Family, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    StableDiffusionInpainting(),
    StableDiffusionXLInpainting(),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}


def family_of_folder(folder: Path) -> Family:
    """Return the family of the pipeline in a local folder.

    Raises:
        AdapterError: Its pipeline class belongs to no family.
    """
    index = json.loads((folder / "model_index.json").read_text())
    return _by_class(str(index.get("_class_name")))


def family_of_pipeline(pipe: Any) -> Family:
    """Return the family of a pipeline object.

    Raises:
        AdapterError: Its class belongs to no family.
    """
    return _by_class(type(pipe).__name__)


def _by_class(name: str) -> Family:
    for family in FAMILIES.values():
        if name in family.pipeline_classes:
            return family
    known = ", ".join(sorted(c for family in FAMILIES.values() for c in family.pipeline_classes))
    raise AdapterError(f"hublora does not know the pipeline {name!r} yet.", f"It knows: {known}.")
