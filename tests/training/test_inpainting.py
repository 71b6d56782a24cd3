"""Inpainting bases: the denoiser sees masks and what is around them, as in diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hublora
from hublora.errors import ConfigError
from hublora.training.losses import training_losses
from hublora.training.session import Session
from tests.tiny import save_images, save_pipeline, save_xl_pipeline

MAKERS = {"sd": save_pipeline, "xl": save_xl_pipeline}


@pytest.fixture(scope="module", params=MAKERS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp("base") / "inpaint", inpaints=True)


def seen_by_unet(session: Session, call: Callable[[], Any]) -> torch.Tensor:
    """Return what the U-Net is given in a call."""
    seen = []
    hook = session.pipe.unet.register_forward_pre_hook(lambda unet, given: seen.append(given[0]))
    call()
    hook.remove()
    return seen[0]


def test_an_image_and_its_mask_look_as_in_the_pipelines_own_call(
    start: Callable[..., Session], base: Path, tmp_path: Path
) -> None:
    """With a mask file beside the image, so that it is known."""
    folder = save_images(tmp_path / "masked", 1)
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 16:64] = 255
    Image.fromarray(mask).save(folder / "0.mask.png")
    session = start(
        base__model=str(base), data__dataset=None, data__folder=folder, data__masks=True
    )
    session.pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():  # theirs is sampled from the VAE's distribution; ours is its mean
        session.pipe.vae.quant_conv.weight[4:] = 0
        session.pipe.vae.quant_conv.bias[4:] = -30

    def generate() -> None:
        with torch.no_grad(), Image.open(folder / "0.png") as image:
            session.pipe(
                "x", image=image, mask_image=Image.fromarray(mask), strength=1.0,
                num_inference_steps=1, guidance_scale=1.0,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip

    theirs = seen_by_unet(session, generate)
    ours = seen_by_unet(session, lambda: training_losses(session, [0], torch.Generator()))
    assert ours.shape == theirs.shape == (1, 9, 16, 16)
    assert torch.equal(ours[:, 4], theirs[:, 4])
    assert torch.allclose(ours[:, 5:], theirs[:, 5:], atol=1e-5)


def test_masks_are_random_and_the_same_again(start: Callable[..., Session], base: Path) -> None:
    session = start(base__model=str(base), data__inpaint_mask_variants=8)
    again = start(base__model=str(base), data__inpaint_mask_variants=8)
    masks, around = session.data.inpaint_masks([0] * 8, [0] * 8, range(8))
    assert torch.equal(masks, again.data.inpaint_masks([0] * 8, [0] * 8, range(8))[0])
    shares = masks.mean(dim=(1, 2, 3))
    assert 0 < shares.min() < shares.max() == 1, "some show all"
    assert len({tensor.numpy().tobytes() for tensor in masks}) > 5
    assert len({tensor.numpy().tobytes() for tensor in around}) > 5
    network_inputs = [
        seen_by_unet(session, lambda n=n: training_losses(session, [n], torch.Generator()))
        for n in range(6)
    ]
    assert len({one[:, 4].numpy().tobytes() for one in network_inputs}) > 2


def test_an_adapter_is_trained_pushed_verified_and_fills_in(
    settings, base: Path, tmp_path: Path
) -> None:
    repo = f"me/inpaint-{base.parent.name.replace('_', '-')}"
    config = settings(
        base__model=str(base), hub__push=True, hub__model_id=repo, schedule__max_train_steps=2,
        validation__prompts=["a star"], validation__num_images=1, holdout__images=1,
        validation__num_inference_steps=1,
    )  # fmt: skip
    folder = hublora.train(config).folder
    card = (folder / "README.md").read_text()
    assert "mask_image=load_image(" in card
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.new("RGB", (64, 64), "red").save(photo)
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(mask)
    how = {"base": str(base), "num_inference_steps": 2, "output": tmp_path / "out.png"}
    (path,) = hublora.run([repo], "a star", image=photo, mask=mask, **how)
    with Image.open(path) as image:
        assert image.size == (64, 64)
    with pytest.raises(ConfigError, match="requires image and mask"):
        hublora.run([repo], "a star", image=photo, **how)
