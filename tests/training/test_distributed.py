"""Two processes train as one with twice the batch, and only the main one writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

import hublora
from hublora.adapters.files import load_adapter
from hublora.errors import ConfigError
from hublora.training.config.training_config import TrainingConfig
from tests.tiny import save_images

LAUNCH = [
    *(sys.executable, "-m", "accelerate.commands.launch"),
    *("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hublora", "train"),
]
SETTINGS = {
    "method": "pivotal",
    "tokens.placeholders": "[<x>]",
    "tokens.first_steps": "1",
    "dreambooth.prior_preservation": "true",
    "dreambooth.class_prompt": "a cat",
    "dreambooth.num_class_images": "2",
    "base.model": "bases/epsilon",
    "data.aspect_buckets": "true",
    "data.bucket_batch": "2",
    "data.shuffle_tags": "true",
    "adapter.ema_decay": "0.9",
    "adapter.text_encoder": "true",
    "schedule.max_train_steps": "3",
    "optimizer.learning_rate": "1e-3",
    "checkpoint.steps": "2",
    "holdout.images": "1",
    "holdout.timesteps": "3",
    "validation.steps": "2",
    "validation.prompts": "[x]",
    "validation.num_images": "1",
    "validation.num_inference_steps": "1",
    "gradient_accumulation_steps": "2",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_equal_one_with_twice_the_batch(
    settings: Callable[..., TrainingConfig], hub: object, tmp_path: Path
) -> None:
    import yaml
    from huggingface_hub import HfApi

    run, images = tmp_path / "two", _images(tmp_path / "images")
    settings_of_both = {**SETTINGS, "data.folder": str(images)}
    given = [f"--set={key}={value}" for key, value in settings_of_both.items()]
    done = subprocess.run(
        [*LAUNCH, *given, "--output-dir", str(run), "--push-to-hub", "--hub-model-id", "me/two"],
        cwd=tmp_path,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Pushed and verified") == 1, "the main process alone speaks"
    assert done.stderr.count("Training ") >= 1
    assert len(HfApi().list_repo_commits("me/two")) <= 2, "the first commit and one push"

    one = {key: yaml.safe_load(value) for key, value in settings_of_both.items()}
    config = TrainingConfig.from_settings(
        {**one, "train_batch_size": 2, "output_dir": str(tmp_path / "one")}
    )
    hublora.train(config)
    names = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (run, tmp_path / "one")
    ]
    named = (".cache", "comfyui", "embeddings")  # files in them are called as the run
    same = {name for name in names[0] if not name.startswith(named)}
    assert same == {name for name in names[1] if not name.startswith(named)}
    together, alone = (
        load_adapter(folder / "pytorch_lora_weights.safetensors")
        for folder in (run, tmp_path / "one")
    )
    for component, layers in alone.layers.items():
        for name, layer in layers.items():
            other = together.layers[component][name]
            assert (layer.up - other.up).abs().max() < 1e-5
            assert (layer.down - other.down).abs().max() < 1e-5
    words = [
        load_file(folder / "embeddings" / f"{name}.safetensors")["clip_l"]
        for folder, name in ((run, "two"), (tmp_path / "one", "one"))
    ]
    assert (words[0] - words[1]).abs().max() < 1e-5
    losses = [
        [row["loss"] for row in _history(folder)] + [row["held_out"] for row in _history(folder)]
        for folder in (run, tmp_path / "one")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def _images(folder: Path) -> Path:
    """Save seven images of two shapes, with tags in their captions."""
    save_images(folder, count=7)
    for number in (0, 3, 4):
        path = folder / f"{number}.png"
        Image.open(path).resize((48, 80)).save(path)
    metadata = folder / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("red star", "red, star, drawn,"))
    return folder


def _history(folder: Path) -> list[dict[str, float]]:
    import json

    lines = (folder / "training" / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("flag", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launch_that_shards_weights_is_refused_before_any_work(
    settings: Callable[..., TrainingConfig], flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(flag, "true")
    with pytest.raises(ConfigError, match="--multi_gpu"):
        hublora.train(settings(base__model="bases/nothing"))
