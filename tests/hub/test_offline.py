"""What was used once works without the Hub; what was not says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hublora
from hublora.localhub import import_folder
from tests.lora import random_adapter, save_adapter

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OFFLINE = """
import sys
from pathlib import Path

import hublora
from hublora.errors import HubError, NotFoundError

ref, out = sys.argv[1], Path(sys.argv[2])
(facts,) = hublora.inspect(ref)
print(facts.source)
print(facts.base_model)
hublora.run([ref], "a cat", output=out / "offline.png", num_inference_steps=1)
settings = {"base.model": "bases/epsilon", "data.dataset": "bases/images"}
settings |= {"schedule.max_train_steps": 1, "validation.num_inference_steps": 1}
settings |= {"validation.num_images": 1}
result = hublora.train(hublora.TrainingConfig.from_settings(settings | {"output_dir": out / "b"}))
print(result.folder)
for use in (hublora.inspect, hublora.load):
    try:
        use("me/never-seen")
    except HubError as error:
        print(error)
try:
    hublora.load("runwayml/stable-diffusion-v1-5")
except NotFoundError as error:
    print(error)
try:
    hublora.push(result.folder, "me/x")
except HubError as error:
    print(error)
"""


@pytest.mark.slow
def test_what_was_used_once_works_offline(
    hub: object, hub_data: Path, bases: Path, repo_id: str, api: HfApi, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    save_adapter(random_adapter(pipe), tmp_path / "adapter")  # only its card names the base
    (tmp_path / "adapter" / "README.md").write_text("---\nbase_model: bases/epsilon\n---\n# x\n")
    commit = import_folder(hub_data, repo_id, tmp_path / "adapter")
    hublora.run([repo_id], "a cat", output=tmp_path / "online.png", num_inference_steps=1)
    settings = {"base.model": "bases/epsilon", "data.dataset": "bases/images"}
    settings |= {"schedule.max_train_steps": 1, "validation.num_inference_steps": 1}
    settings |= {"validation.num_images": 1, "output_dir": tmp_path / "a"}
    hublora.train(hublora.TrainingConfig.from_settings(settings))

    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, repo_id, str(tmp_path)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    source, base, folder, *errors = done.stdout.splitlines()
    assert source == f"{repo_id}@{commit}/pytorch_lora_weights.safetensors"
    assert base == "bases/epsilon"
    assert (Path(folder) / "pytorch_lora_weights.safetensors").is_file()
    missing = "The model me/never-seen is not in the local cache and HF_HUB_OFFLINE is set."
    assert [line.startswith(missing) for line in errors] == [True, True, False, False]
    assert "Use stable-diffusion-v1-5/stable-diffusion-v1-5 instead" in errors[2]
    assert "HF_HUB_OFFLINE is set, so nothing can be pushed" in errors[3]
    with Image.open(tmp_path / "online.png") as one, Image.open(tmp_path / "offline.png") as other:
        assert one.tobytes() == other.tobytes()
        assert one.text == other.text
