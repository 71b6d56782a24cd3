"""A frozen adapter acts while another one is trained, and in no image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import hublora
from hublora.errors import AdapterError, ConfigError
from hublora.localhub import import_folder
from tests.flow_pipelines import FLOW_PIPELINES
from tests.lora import random_adapter, save_adapter

REPO = "ostris/zimage_turbo_training_adapter"
FILE = "zimage_turbo_training_adapter_v2.safetensors"
TURBO = "Tongyi-MAI/Z-Image-Turbo"
WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a red cat number {number}")
    return folder


@pytest.fixture(scope="module")
def turbo(hub: object, hub_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled base and its assistant on the Hub, beside an older one; the base's folder, and
    that of the base with half of the assistant in its weights, put there by diffusers."""
    folder = tmp_path_factory.mktemp("turbo")
    pipe = FLOW_PIPELINES["z-image"]()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, shift=3.0)
    pipe.save_pretrained(folder / "base")
    import_folder(hub_data, TURBO, folder / "base")
    layers = {"transformer": ("to_q", "to_k", "to_v", "feed_forward.w2")}
    for version, seed in ((FILE, 1), ("zimage_turbo_training_adapter_v1.safetensors", 2)):
        adapter = random_adapter(pipe, layers, seed=seed, size=0.2)
        save_adapter(adapter, folder / version, TURBO)
        (folder / "assistant").mkdir(exist_ok=True)
        shutil.copy(folder / version / WEIGHTS, folder / "assistant" / version)
    import_folder(hub_data, REPO, folder / "assistant")
    pipe.load_lora_weights(folder / "assistant", weight_name=FILE)
    pipe.fuse_lora(lora_scale=0.5)
    pipe.unload_lora_weights()
    pipe.save_pretrained(folder / "merged")
    return folder


def settings(images: Path, output: Path, **more: Any) -> dict[str, Any]:
    return {
        "base.model": TURBO,
        "data.folder": images,
        "data.resolution": 32,
        "adapter.rank": 2,
        "optimizer.learning_rate": 0.01,
        "schedule.max_train_steps": 4,
        "schedule.name": "constant",
        "checkpoint.steps": 2,
        "holdout.images": 1,
        "holdout.steps": 2,
        "holdout.timesteps": 2,
        "validation.prompts": ["a red cat"],
        "validation.num_images": 1,
        "validation.num_inference_steps": 2,
        "output_dir": output,
        **more,
    }


def train(given: dict[str, Any], resume: str | None = None) -> Any:
    notes: list[str] = []
    config = hublora.TrainingConfig.from_settings(given)
    result = hublora.train(config, resume=resume, callback=lambda one: notes.append(str(one)))
    return result.folder, notes


@pytest.fixture(scope="module")
def assisted(turbo: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(folder, notes) of a training with half of the assistant."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(settings(images, folder, **{"adapter.assistant": f"{REPO}:0.5"}))


def history(folder: Path) -> list[Any]:
    import json

    lines = (folder / "training" / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_it_trains_as_on_the_base_with_the_assistant_in_its_weights(
    assisted: Any, turbo: Path, images: Path, tmp_path: Path
) -> None:
    """Losses, held-out losses and weights; not so without it."""
    folder, notes = assisted
    merged, _ = train(settings(images, tmp_path / "run", **{"base.model": str(turbo / "merged")}))
    ours, theirs = history(folder), history(merged)
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        if "held_out" in other:
            assert one["held_out"] == pytest.approx(other["held_out"], rel=1e-4)
    tensors, others = load_file(folder / WEIGHTS), load_file(merged / WEIGHTS)
    assert tensors.keys() == others.keys()
    assert max(float((tensors[k] - others[k]).abs().max()) for k in tensors) < 1e-3
    plain, warned = train(
        settings(images, tmp_path / "plain", **{"base.model": str(turbo / "base")})
    )
    assert history(plain)[0]["loss"] != pytest.approx(ours[0]["loss"], rel=1e-3)
    assert not any("was distilled" in note for note in notes)
    assert any("was distilled to 9 steps" in note for note in warned)


def test_images_and_the_result_are_without_it(assisted: Any, turbo: Path) -> None:
    from diffusers import ZImagePipeline

    folder, _ = assisted
    pipe = ZImagePipeline.from_pretrained(turbo / "base")
    pipe.load_lora_weights(folder, weight_name=WEIGHTS)
    image = pipe(
        "a red cat",
        negative_prompt="",
        guidance_scale=0.0,
        num_inference_steps=2,
        width=32,
        height=32,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    with Image.open(folder / "images" / "0.png") as ours:
        difference = np.abs(np.asarray(ours, float) - np.asarray(image, float)).mean()
    assert difference < 1


def test_it_is_named_at_its_commit_and_file(assisted: Any) -> None:
    from safetensors import safe_open

    from hublora.hub.resolve import inspect_repo

    folder, notes = assisted
    ref = f"{REPO}@{inspect_repo(REPO).commit}/{FILE}"
    assert any(f"Assistant while training: {ref}" in note for note in notes)
    with safe_open(folder / WEIGHTS, "pt") as file:
        assert file.metadata()["hublora.assistant"] == f"{ref}:0.5"
    card = (folder / "README.md").read_text()
    assert f"| assistant while training | {ref}:0.5 |" in card.replace("\\_", "_")
    assert f"assistant: {ref}:0.5" in (folder / "training" / "config.yaml").read_text()


def test_a_resumed_training_ends_in_the_same_bytes(
    assisted: Any, images: Path, tmp_path: Path
) -> None:
    whole, _ = assisted
    part = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(part / "checkpoint-4")
    (part / WEIGHTS).unlink()
    given = settings(images, part, **{"adapter.assistant": f"{REPO}:0.5"})
    train(given, resume="latest")
    for file in (WEIGHTS, "images/0.png"):
        assert (part / file).read_bytes() == (whole / file).read_bytes()
    assert history(part)[-1]["held_out"] == history(whole)[-1]["held_out"]
    with pytest.raises(ConfigError, match=r"adapter\.assistant \(was"):
        train({**given, "adapter.assistant": f"{REPO}:0.6"}, resume="latest")


def test_training_on_a_distilled_base_alone_names_what_helps(
    turbo: Path, images: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    config = hublora.TrainingConfig.from_settings(settings(images, tmp_path / "run"))
    hublora.dry_run(config, callback=lambda event: notes.append(str(event)))
    (said,) = [note for note in notes if "was distilled to" in note]
    assert f"--base Tongyi-MAI/Z-Image --generation-base {TURBO}" in said
    assert f"add --assistant {REPO}/{FILE}" in said


def test_an_assistant_that_does_not_fit_is_refused(
    turbo: Path, images: Path, hub_data: Path, tmp_path: Path
) -> None:
    """By headers, before the base's weights are downloaded."""
    from huggingface_hub import try_to_load_from_cache

    pipe = FLOW_PIPELINES["chroma"]()
    pipe.save_pretrained(tmp_path / "chroma")
    import_folder(hub_data, "bases/assistants-chroma", tmp_path / "chroma")
    given = {**settings(images, tmp_path / "run"), "adapter.assistant": REPO}
    with pytest.raises(AdapterError, match="does not fit bases/assistants-chroma"):
        train({**given, "base.model": "bases/assistants-chroma"})
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert not isinstance(try_to_load_from_cache("bases/assistants-chroma", file), str)
    with pytest.raises(ConfigError, match="dora scales the weights of the base"):
        train({**given, "adapter.method": "dora"})
