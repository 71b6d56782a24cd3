from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def _fresh(bases: Path, name: str) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(bases / name)


@pytest.fixture
def pipe(bases: Path) -> Any:
    """The random base, fresh for each test."""
    return _fresh(bases, "epsilon")


@pytest.fixture
def other(bases: Path) -> Any:
    """The same base once more."""
    return _fresh(bases, "epsilon")


@pytest.fixture
def xl(bases: Path) -> Any:
    """The random base of Stable Diffusion XL's classes, fresh for each test."""
    return _fresh(bases, "xl")
