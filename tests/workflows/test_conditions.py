"""Pictures from pictures: image-to-image, inpainting and ControlNet, with adapters on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hublora.generation.metadata import read_picture
from hublora.generation.sample import image_difference


@pytest.fixture
def adapter(publish: Callable[..., str], tmp_path: Path, monkeypatch: Any) -> str:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (70, 66, 3), dtype=np.uint8)
    Image.fromarray(noise).save("start.png")
    for name, level in (("black", 0), ("white", 255)):
        Image.new("L", (64, 64), level).save(f"{name}.png")
    return publish("pictures", 1)


@pytest.fixture
def drawn(adapter: str, hublora_cli: Any) -> Callable[..., Image.Image]:
    def run(*more: str) -> Image.Image:
        done = hublora_cli("run", adapter, "a hill", "--steps=4", "-o", "out.png", *more)
        assert done.status == 0, done.err
        with Image.open("out.png") as image:
            return image.copy()

    return run


def test_strength_is_how_much_is_drawn_anew(drawn: Callable[..., Image.Image]) -> None:
    def moved(strength: float) -> float:
        command = ["--image=start.png", f"--strength={strength}"]
        return image_difference(drawn(*command, "--seed=1"), drawn(*command, "--seed=2"))

    assert moved(0.25) < moved(1.0)
    assert drawn("--image=start.png").size == (64, 64)
    facts = read_picture(Path("out.png"))
    assert len(facts["conditions"]["image"]) == 64


def test_a_black_mask_keeps_and_a_white_one_draws(drawn: Callable[..., Image.Image]) -> None:
    def moved(mask: str) -> float:
        command = ["--image=start.png", f"--mask={mask}.png", "--strength=1", "--seed=1"]
        return image_difference(drawn(*command), drawn(*command, "--guidance=9"))

    assert moved("black") == 0 < moved("white")


def test_a_controlnet_is_followed(
    drawn: Callable[..., Image.Image], hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    from hublora.localhub import import_folder

    unet = UNet2DConditionModel.from_pretrained(bases / "epsilon" / "unet")
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 16))
    for block in control.controlnet_down_blocks:  # zero when untrained: nothing would follow
        torch.nn.init.normal_(block.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight)
    control.save_pretrained(tmp_path / "control")
    import_folder(hub_data, "me/control", tmp_path / "control")
    command = ["--controlnet=me/control", "--width=64", "--height=64"]
    one, other = (drawn(*command, f"--control-image={name}.png") for name in ("black", "white"))
    assert image_difference(one, other) > 0


def test_what_does_not_go_together_is_refused(adapter: str, hublora_cli: Any) -> None:
    for more, words in (
        (["--mask=black.png"], "--image FILE"),
        (["--image=start.png", "--strength=2"], "not in (0, 1]"),
        (["--controlnet=me/x"], "no model me/x"),
        (["--control-image=black.png"], "go together"),
    ):
        done = hublora_cli("run", adapter, "a", *more)
        assert done.status == 1
        assert words in done.err
    Path("text.png").write_text("no picture")
    assert "not a picture" in hublora_cli("run", adapter, "a", "--image=text.png").err
