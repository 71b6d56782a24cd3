"""The whole line on Stable Diffusion XL: train, push, verify, use and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hublora

REPO = "me/xl-lora"
PARTS = {"unet", "text_encoder", "text_encoder_2"}


@pytest.fixture(scope="module")
def trained(hub: object, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training of all three parts, pushed; a push generates an image again and compares."""
    return hublora.train(
        hublora.TrainingConfig.from_tree(
            {
                "base": {"model": "bases/xl"},
                "data": {"dataset": "bases/images", "max_train_samples": 2},
                "adapter": {"rank": 2, "text_encoder": True},
                "schedule": {"max_train_steps": 2},
                "optimizer": {"learning_rate": 1e-2},
                "validation": {"prompts": ["Totoro"], "num_images": 1, "num_inference_steps": 2},
                "hub": {"push": True, "model_id": REPO},
                "output_dir": tmp_path_factory.mktemp("runs") / "xl-lora",
            }
        )
    )


def test_it_is_pushed_and_its_facts_name_the_family(trained: Any) -> None:
    assert trained.pushed.repo_id == REPO
    (facts,) = hublora.inspect(REPO)
    assert facts.family == "stable-diffusion-xl"
    assert facts.base_model == "bases/xl"
    assert set(facts.components) == PARTS


def test_it_is_loaded_as_plain_diffusers_loads_it(trained: Any, bases: Path) -> None:
    import torch
    from diffusers import StableDiffusionXLPipeline

    ours = hublora.load(REPO)
    assert type(ours) is StableDiffusionXLPipeline
    plain = StableDiffusionXLPipeline.from_pretrained(bases / "xl")
    images = []
    for pipe in (ours, plain):
        if pipe is plain:
            images.append(_generate(plain, torch.Generator().manual_seed(1)))
            plain.load_lora_weights(trained.folder, weight_name="pytorch_lora_weights.safetensors")
        images.append(_generate(pipe, torch.Generator().manual_seed(1)))
    with_ours, base_alone, with_plain = images
    assert np.array_equal(with_ours, with_plain)
    assert not np.array_equal(with_ours, base_alone)


def test_kohyas_layout_tells_the_text_encoders_apart(trained: Any) -> None:
    from safetensors import safe_open

    (path,) = (trained.folder / "comfyui").glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        about = file.metadata()
    prefixes = {name.split("_text_model_")[0] for name in names if "_text_model_" in name}
    assert prefixes == {"lora_te1", "lora_te2"}
    assert any(name.startswith("lora_unet_down_blocks_1_") for name in names)
    assert about["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


def test_an_image_is_generated_by_the_repo_id(trained: Any, tmp_path: Path) -> None:
    (path,) = hublora.run([REPO], "Totoro", output=tmp_path / "x.png", num_inference_steps=2)
    assert path.is_file()


def _generate(pipe: Any, generator: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe("Totoro", num_inference_steps=2, generator=generator, output_type="np").images[0]
