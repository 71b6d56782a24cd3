"""The other clients that people have: the `hf` command line, diffusers, transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from huggingface_hub import HfApi


def test_the_command_line_uploads_and_downloads(hub, api, repo, tmp_path):
    weights = os.urandom(20_000)
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "w.safetensors").write_bytes(weights)
    (tmp_path / "out" / "images" / "0.txt").write_text("image")

    def hf(*args: str) -> str:
        program = Path(sys.executable).with_name("hf")
        environment = os.environ | hub.environ() | {"HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [program, *args], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    hf("upload", repo, str(tmp_path / "out"), ".", "--commit-message", "By hand")
    assert api.list_repo_commits(repo)[0].title == "By hand"
    hf("download", repo, "--local-dir", str(tmp_path / "back"))
    assert (tmp_path / "back" / "w.safetensors").read_bytes() == weights
    assert (tmp_path / "back" / "images" / "0.txt").read_text() == "image"


def test_diffusers_and_transformers_push_and_load(tmp_path):
    # In this process they believe the Hub of tests/conftest.py to be the Hub.
    import torch
    from diffusers import DiffusionPipeline
    from transformers import CLIPTextModel

    pipeline = DiffusionPipeline.from_pretrained("bases/epsilon")
    pipeline.save_pretrained(str(tmp_path / "p"), push_to_hub=True, repo_id="me/pushed-pipeline")
    pipeline.text_encoder.push_to_hub("me/pushed-encoder")
    again = DiffusionPipeline.from_pretrained("me/pushed-pipeline")
    encoder = CLIPTextModel.from_pretrained("me/pushed-encoder")
    for mine, theirs in (
        (pipeline.unet, again.unet),
        (pipeline.text_encoder, again.text_encoder),
        (pipeline.text_encoder, encoder),
    ):
        found = theirs.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in mine.state_dict().items())
    for name in ("me/pushed-pipeline", "me/pushed-encoder"):
        HfApi().delete_repo(name)
