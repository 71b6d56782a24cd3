from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def pipe(bases: Path) -> Any:
    """The random base, fresh for each test."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
