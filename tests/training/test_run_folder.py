"""What a finished training leaves: an adapter repo that says how to make it again, and no more."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi
from safetensors import safe_open

import hublora
from hublora.errors import ConfigError
from hublora.hub.repo_layout import repo_files

WHOLE = "me/whole-run"
BROAD = ["to_q", "to_out.0", "proj_in", "conv1", "ff.net.0.proj", "time_emb_proj", "conv_shortcut"]


@pytest.fixture(scope="module")
def run(hub: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of everything that can be trained, without a validation prompt."""
    folder = tmp_path_factory.mktemp("runs") / "broad"
    hublora.train(
        hublora.TrainingConfig.from_settings(
            {
                "base.model": "bases/epsilon",
                "data.dataset": "bases/images",
                "data.random_flip": True,
                "data.caption_dropout": 0.1,
                "adapter.targets": BROAD,
                "adapter.text_encoder": True,
                "adapter.rank": 2,
                "adapter.alpha": 6,
                "adapter.trigger_words": ["star"],
                "schedule.num_train_epochs": 1,
                "optimizer.learning_rate": 1e-2,
                "objective.snr_gamma": 5,
                "objective.noise_offset": 0.1,
                "validation.steps": 3,
                "checkpoint.steps": 3,
                "gradient_checkpointing": True,
                "output_dir": folder,
            }
        )
    )
    return folder


def test_the_folder_holds_the_repo_and_beside_it_checkpoints_and_previews(run: Path) -> None:
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    beside = {name for name in files if name.startswith(("checkpoint-", "previews/", ".cache/"))}
    beside.add(".gitignore")
    assert files - beside == {
        "README.md",
        "pytorch_lora_weights.safetensors",
        "comfyui/broad.safetensors",
        *(f"images/{number}.png" for number in range(4)),
        "images/before-after.png",
        "images/validation.png",
        "training/config.yaml",
        "training/environment.json",
        "training/history.jsonl",
        "training/loss.png",
    }
    assert "previews/step-000003.png" in beside
    assert {name.split("/")[0] for name in beside} == {
        "checkpoint-3",
        "checkpoint-6",
        "previews",
        ".cache",
        ".gitignore",
    }


def test_an_upload_of_the_whole_folder_shares_no_checkpoint_and_nothing_hidden(
    run: Path, hub: Any
) -> None:
    """The command line of huggingface_hub, as it is: it refuses some hidden paths."""
    program = Path(sys.executable).with_name("hf")
    done = subprocess.run(
        [program, "upload", WHOLE, run], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    shared = set(HfApi().list_repo_files(WHOLE))
    assert shared - {".gitattributes", ".gitignore"} == set(repo_files(run))


def test_nothing_in_it_tells_whose_machine_it_was(run: Path) -> None:
    secrets = {str(run.parent), str(Path.home()), os.environ["HF_TOKEN"], os.environ["HF_HOME"]}
    secrets.add(os.environ["HUBLORA_CACHE"])
    names = {socket.gethostname(), getpass.getuser()}
    for path in (path for path in run.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found = [secret for secret in secrets if secret.encode() in content]
        if path.suffix in (".json", ".jsonl", ".yaml", ".md"):  # short words are in any image
            found += [
                name for name in names if re.search(rf"\b{re.escape(name)}\b".encode(), content)
            ]
        assert not found, f"{path.relative_to(run)} holds {found}"


def test_the_history_has_a_line_for_every_step(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "training/history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["loss"] > 0 and row.keys() == {"step", "loss", "lr", "buckets"} for row in rows)
    assert rows[0]["lr"] == 1e-2


def test_the_config_is_pinned_and_makes_the_adapter_again(run: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((run / "training/config.yaml").read_text())
    assert len(tree["base"]["revision"]) == len(tree["data"]["revision"]) == 40
    config = hublora.TrainingConfig.from_file(run / "training/config.yaml")
    again = config.model_copy(update={"output_dir": tmp_path / "broad"})
    hublora.train(again)
    name = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "broad" / name).read_bytes() == (run / name).read_bytes()


def test_plain_diffusers_loads_every_tensor(run: Path, bases: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict

    name = "pytorch_lora_weights.safetensors"
    with safe_open(run / name, "pt") as file:
        saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    kinds = {target for target in BROAD for key in saved if f".{target}." in key}
    assert kinds == set(BROAD)
    assert any(key.startswith("text_encoder.") for key in saved)

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon")
    before = pipe("a star", num_inference_steps=1, output_type="np", generator=_seed()).images
    pipe.load_lora_weights(run, weight_name=name)
    after = pipe("a star", num_inference_steps=1, output_type="np", generator=_seed()).images
    loaded = {
        f"{component}.{key}": tensor
        for component in ("unet", "text_encoder")
        for key, tensor in get_peft_model_state_dict(
            getattr(pipe, component), adapter_name="default_0"
        ).items()
    }
    assert len(loaded) == len(saved)
    ends = {_without_wrapper(key): tensor for key, tensor in saved.items()}
    for key, tensor in loaded.items():
        assert torch.equal(tensor, ends[_without_wrapper(key)]), key
    assert abs(before - after).max() > 1e-3
    scales = {
        module.scaling["default_0"]
        for component in (pipe.unet, pipe.text_encoder)
        for module in component.modules()
        if hasattr(module, "scaling") and "default_0" in module.scaling
    }
    assert scales == {3.0}, "alpha / rank"


def _seed() -> object:
    import torch

    return torch.Generator().manual_seed(0)


def _without_wrapper(key: str) -> str:
    """Some versions of transformers have a level `text_model`, and some have not."""
    return key.replace("text_encoder.text_model.", "text_encoder.")


def test_a_finished_training_is_not_overwritten(run: Path, settings: Callable) -> None:
    with pytest.raises(ConfigError, match="contains a training already") as caught:
        hublora.train(settings(output_dir=run))
    assert "--resume" in str(caught.value.hint)


def test_resuming_a_finished_training_writes_its_results_again(settings: Callable) -> None:
    config = settings(schedule__max_train_steps=2, validation__prompts=["x"])
    first = hublora.train(config)
    weights = (first.folder / "pytorch_lora_weights.safetensors").read_bytes()
    second = hublora.train(config, resume="latest")
    assert (second.steps, second.final_loss) == (0, first.final_loss)
    assert (first.folder / "pytorch_lora_weights.safetensors").read_bytes() == weights
    longer = settings(schedule__max_train_steps=3, validation__prompts=["x"])
    with pytest.raises(ConfigError, match=r"max_train_steps \(was 2, is 3\)") as caught:
        hublora.train(longer, resume="latest")
    key = re.search(r"--set (\S+)=RUN_FOLDER", str(caught.value.hint))
    assert key is not None
    new = {"output_dir": first.folder / "next", key[1].replace(".", "__"): str(first.folder)}
    assert hublora.train(settings(schedule__max_train_steps=1, **new)).steps == 1


def test_a_local_folder_of_images_and_a_local_base_leave_only_their_names(
    bases: Path, settings: Callable
) -> None:
    config = settings(
        base__model=str(bases / "epsilon"),
        data__dataset=None,
        data__folder=bases / "images",
        schedule__max_train_steps=1,
    )
    folder = hublora.train(config).folder
    tree = yaml.safe_load((folder / "training/config.yaml").read_text())
    assert tree["base"]["model"] == "epsilon"
    assert tree["data"]["folder"] == "images"
    assert str(bases) not in (folder / "README.md").read_text()
