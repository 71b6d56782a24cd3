"""Images and folders of images for the tests of `hublora.data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hublora.data import DataConfig
from tests.data.images import noise_image


@pytest.fixture
def make_image() -> Callable[..., Image.Image]:
    return noise_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five images of different shapes with a .txt beside each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        noise_image(number, width=40 + 10 * number, height=48).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"image {number % 3}")
    return folder


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., DataConfig]:
    """Return a config whose cache is the test's own."""

    def make(**settings: object) -> DataConfig:
        return DataConfig(**{"cache_dir": tmp_path / "cache", **settings})

    return make
