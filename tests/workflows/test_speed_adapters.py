"""Adapters that were trained for few steps bring their steps, guidance and scheduler."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hublora
from hublora.errors import ConfigError
from hublora.families.registry import speed_of
from hublora.families.speed import SpeedSettings
from hublora.generation.metadata import read_image
from hublora.localhub import import_folder
from tests.flow_pipelines import FLOW_PIPELINES
from tests.lora import random_adapter, save_adapter

WEIGHTS = "pytorch_lora_weights.safetensors"
Publish = Callable[..., str]


@pytest.fixture
def fast(hub: object, hub_data: Path, tmp_path: Path) -> Publish:
    """Put an adapter with random weights on the Hub under a name that may be a published one's."""

    def make(pipe: Any, name: str, file: str, base: str, layers: Any = None) -> str:
        folder = tmp_path / name
        save_adapter(random_adapter(pipe, layers, seed=7, size=0.1), folder, base)
        if file != WEIGHTS:
            shutil.move(folder / WEIGHTS, folder / file)
        import_folder(hub_data, name, folder)
        return str(folder / file)

    return make


def pixels(path: Path | str) -> Any:
    with Image.open(path) as image:
        return np.asarray(image, float)


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_an_lcm_adapter_is_sampled_as_diffusers_samples_it(
    bases: Path, fast: Publish, tmp_path: Path
) -> None:
    from diffusers import LCMScheduler, StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    name = "latent-consistency/lcm-lora-sdv1-5"
    file = fast(plain, name, WEIGHTS, "bases/epsilon")
    notes: list[str] = []
    (path,) = hublora.run(
        [name], "a cat", output=tmp_path / "x.png", callback=lambda one: notes.append(str(one))
    )
    plain.scheduler = LCMScheduler.from_config(plain.scheduler.config)
    plain.load_lora_weights(Path(file).parent, weight_name=WEIGHTS)
    image = plain("a cat", num_inference_steps=4, guidance_scale=1.0, generator=seed()).images[0]
    assert np.array_equal(pixels(path), np.asarray(image, float))
    told = "It brings 4 steps, guidance 1 and the scheduler LCM."
    assert sum(told in note for note in notes) == 1
    sampling = read_image(path)["sampling"]
    assert (sampling["num_inference_steps"], sampling["scheduler"]) == (4, "LCM")
    assert hublora.replay(path, output=tmp_path / "again.png").difference == 0
    (facts,) = hublora.inspect(name)
    assert facts.speed == SpeedSettings(4, 1.0, "LCM")


def test_what_is_given_wins_and_others_compose_with_it(
    bases: Path, fast: Publish, publish: Publish, tmp_path: Path
) -> None:
    from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    name, style = "latent-consistency/lcm-lora-sdv1-5", publish("speedy-ink", seed=3)
    fast(pipe, name, WEIGHTS, "bases/epsilon")
    given = {"steps": 3, "scheduler": "DDIM", "output": tmp_path / "x.png"}
    sampling = read_image(hublora.run([style, name], "a cat", **given)[0])["sampling"]
    assert (sampling["num_inference_steps"], sampling["scheduler"]) == (3, "DDIM")
    assert sampling["guidance_scale"] == 1.0
    loaded = hublora.load(f"{style}:0.5", name)
    assert type(loaded.scheduler) is LCMScheduler
    hublora.use(loaded, style)
    assert type(loaded.scheduler) is type(pipe.scheduler)
    hublora.use(loaded, f"{name}:0")
    assert loaded.hublora.speed is None
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    hublora.use(loaded, style)
    assert type(loaded.scheduler) is DDIMScheduler
    plans = [
        hublora.run([one], "a cat", steps=1, output=tmp_path / f"{i}.png")[0]
        for i, one in enumerate((style, f"{name}:0"))
    ]
    assert all("scheduler" not in read_image(one)["sampling"] for one in plans)
    items = list(hublora.run_batch([name], ["a cat"], output=tmp_path / "batch"))
    assert read_image(items[0].path)["sampling"]["scheduler"] == "LCM"


def test_a_lightning_adapter_is_sampled_with_trailing_timesteps(
    bases: Path, fast: Publish, tmp_path: Path
) -> None:
    """By the name of its file, on the Hub and as a copy of it."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    plain = StableDiffusionXLPipeline.from_pretrained(bases / "xl", add_watermarker=False)
    name = "sdxl_lightning_2step_lora.safetensors"
    file = fast(plain, "ByteDance/SDXL-Lightning", name, "bases/xl")
    plain.scheduler = EulerDiscreteScheduler.from_config(
        plain.scheduler.config, timestep_spacing="trailing"
    )
    plain.load_lora_weights(Path(file).parent, weight_name=name)
    image = plain("a cat", num_inference_steps=2, guidance_scale=0, generator=seed()).images[0]
    for ref in (f"ByteDance/SDXL-Lightning/{name}", file):
        (path,) = hublora.run([ref], "a cat", base="bases/xl", output=tmp_path / "x.png")
        assert np.array_equal(pixels(path), np.asarray(image, float))
    assert read_image(path)["sampling"]["timestep_spacing"] == "trailing"


def test_a_turbo_adapter_of_qwen_image_brings_its_shift(
    hub: object, hub_data: Path, fast: Publish, tmp_path: Path
) -> None:
    """As the card of the published one writes it for diffusers."""
    import math

    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline

    plain = FLOW_PIPELINES["qwen-image"]()
    plain.save_pretrained(tmp_path / "base")
    import_folder(hub_data, "bases/qwen-speed", tmp_path / "base")
    name = "Qwen-Image-Lightning-4steps-V1.0.safetensors"
    layers = {"transformer": ("to_q", "to_k", "to_v")}
    repo = "lightx2v/Qwen-Image-Lightning"
    file = fast(plain, repo, name, "bases/qwen-speed", layers)
    (path,) = hublora.run(
        [f"{repo}/{name}"], "a red cat", width=32, height=32, output=tmp_path / "x.png"
    )
    plain = QwenImagePipeline.from_pretrained(tmp_path / "base")
    plain.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        {
            **plain.scheduler.config,
            "base_shift": math.log(3),
            "max_shift": math.log(3),
            "shift": 1.0,
            "shift_terminal": None,
            "use_dynamic_shifting": True,
            "time_shift_type": "exponential",
        }
    )
    plain.load_lora_weights(Path(file).parent, weight_name=name)
    image = plain(
        "a red cat",
        num_inference_steps=4,
        true_cfg_scale=1.0,
        width=32,
        height=32,
        generator=seed(),
    ).images[0]
    assert np.abs(pixels(path) - np.asarray(image, float)).mean() < 0.1
    assert read_image(path)["sampling"]["shift"] == 3.0
    assert hublora.replay(path, output=tmp_path / "again.png").difference == 0


def test_the_metadata_of_a_file_states_its_own(bases: Path, fast: Publish, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    file = fast(pipe, "me/quick-lora", WEIGHTS, "bases/epsilon")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    for stated, speed in (
        ('{"num_inference_steps": 2, "guidance_scale": 0, "scheduler": "TCD"}', (2, 0.0, "TCD")),
        ('{"num_inference_steps": "2", "guidance_scale": 0}', None),
        ('{"num_inference_steps": 100000, "guidance_scale": 0}', None),
        ("[1]", None),
    ):
        other = tmp_path / "other.safetensors"
        save_file(load_file(file), other, {**metadata, "hublora.speed": stated})
        (facts,) = hublora.inspect(str(other))
        assert facts.speed == (speed and SpeedSettings(*speed))


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("ByteDance/Hyper-SD/Hyper-SDXL-8steps-lora.safetensors", (8, 0.0, "DDIM", "trailing")),
        ("ByteDance/Hyper-SD/Hyper-SDXL-8steps-CFG-lora.safetensors", (8, 5.0, "DDIM", "trailing")),
        ("ByteDance/Hyper-SD/Hyper-SD15-1step-lora.safetensors", (1, 0.0, "TCD")),
        ("alimama-creative/FLUX.1-Turbo-Alpha/diffusion.safetensors", (8, 3.5)),
        ("latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors", (4, 1.0, "LCM")),
        ("me/lightning-strikes/pytorch_lora_weights.safetensors", None),
        ("me/hyper-realism-sdxl/pytorch_lora_weights.safetensors", None),
    ],
)
def test_published_ones_are_known_by_their_names(name: str, speed: Any) -> None:
    assert speed_of([name]) == (speed and SpeedSettings(*speed))


def test_the_weight_that_one_was_trained_for_is_told(
    hub: object, hub_data: Path, fast: Publish, tmp_path: Path
) -> None:
    pipe = FLOW_PIPELINES["flux-dev"]()
    pipe.save_pretrained(tmp_path / "base")
    name = "Hyper-FLUX.1-dev-8steps-lora.safetensors"
    layers = {"transformer": ("to_q",)}
    file = fast(pipe, "ByteDance/Hyper-SD", name, "bases/none", layers)
    notes: list[str] = []
    for weight in ("", ":0.125"):
        hublora.load(
            file + weight, base=tmp_path / "base", callback=lambda one: notes.append(str(one))
        )
    assert sum("was trained for the weight 0.125, and has 1" in note for note in notes) == 1
    assert sum("It brings 8 steps and guidance 3.5" in note for note in notes) == 2


def test_a_shift_is_refused_where_there_is_none(bases: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no shift of noise levels"):
        hublora.run([], "a cat", base=str(bases / "epsilon"), shift=3.0, output=tmp_path / "x.png")
    with pytest.raises(ConfigError, match="shift must be above 0 and at most 100, got 0"):
        hublora.run([], "a cat", base=str(bases / "epsilon"), shift=0.0, output=tmp_path / "x.png")
