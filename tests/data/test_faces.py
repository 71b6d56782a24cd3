"""Crops keep the face that an image shows, and are those of the middle where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from hublora.data import DataConfig, open_source
from hublora.data.checked_json import read_checked, write_checked
from hublora.data.crops import plan_crops

cv2 = pytest.importorskip("cv2")
WIDTH, HEIGHT, LARGER = 200, 100, 4


def face_image(middle: int) -> Image.Image:
    """Return a wide grey image with a drawn face around column `middle`."""
    page = Image.new("L", (WIDTH * LARGER, HEIGHT * LARGER), 120)
    canvas = ImageDraw.Draw(page)

    def ellipse(x: float, y: float, across: float, down: float, grey: int) -> None:
        unit, left, top = 34 * LARGER, middle * LARGER, 50 * LARGER
        canvas.ellipse(
            (
                *(left + (x - across) * unit, top + (y - down) * unit),
                *(left + (x + across) * unit, top + (y + down) * unit),
            ),
            fill=grey,
        )

    ellipse(0, -0.05, 0.8, 1.1, 40)  # hair
    ellipse(0, 0.1, 0.72, 0.95, 205)
    for side in (-0.3, 0.3):
        ellipse(side, -0.12, 0.2, 0.11, 120)
        ellipse(side, -0.1, 0.15, 0.07, 40)
        ellipse(side, -0.3, 0.22, 0.05, 70)
    ellipse(0, 0.15, 0.09, 0.28, 225)  # nose
    ellipse(0, 0.38, 0.14, 0.05, 130)
    ellipse(0, 0.62, 0.28, 0.07, 90)
    return page.resize((WIDTH, HEIGHT)).filter(ImageFilter.GaussianBlur(1))


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    folder = tmp_path / "faces"
    folder.mkdir()
    for middle in (50, 150):
        face_image(middle).save(folder / f"{middle:03d}.png")
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "none.png")
    return DataConfig(
        folder=folder, default_caption="x", crop_on_faces=True, center_crop=True,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip


def test_crops_are_around_faces(config: DataConfig) -> None:
    source = open_source(config)
    assert source.notes == ["Crops are around the face in 2 of 3 images."]
    plan = plan_crops(source.examples, config, (100, 100))
    assert plan.rows == 3, "one crop each"
    middles = [plan.size_conditioning(row)[3] + 50 for row in range(3)]
    assert middles == pytest.approx([50, 150, 100], abs=3)
    tall = plan_crops(source.examples, config, (100, 50))
    assert tall.size_conditioning(0)[3] + 25 == pytest.approx(50, abs=3)


def test_what_was_found_is_remembered(config: DataConfig) -> None:
    first = [example.crop_center for example in open_source(config).examples]
    (cached,) = (config.cache_root / "faces").iterdir()
    remembered = read_checked(cached)
    remembered["faces"][0][0] = 0.3
    write_checked(cached, remembered)
    second = [example.crop_center for example in open_source(config).examples]
    assert second[0][0] == 0.3, "it was read, not looked for"
    cached.write_text("{")
    assert [example.crop_center for example in open_source(config).examples] == first


def test_without_the_package_the_middle_is_cut_and_that_is_said(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    source = open_source(config)
    assert "hublora[faces]" in source.notes[0]
    plan = plan_crops(source.examples, config, (100, 100))
    assert [plan.size_conditioning(row)[3] for row in range(3)] == [50, 50, 50]
