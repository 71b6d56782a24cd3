"""The whole line, as a person goes it: train, push, run, compose, inspect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def adapter(hub: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pushed adapter's repo id."""
    import hublora

    config = hublora.TrainingConfig.from_tree(
        {
            "base": {"model": "bases/epsilon"},
            "data": {"dataset": "bases/images"},
            "schedule": {"max_train_steps": 4},
            "adapter": {"conv_rank": 2, "dropout": 0.1},
            "optimizer": {"learning_rate": 1e-2},
            "validation": {"prompts": ["Totoro"], "num_images": 2},
            "hub": {"push": True, "model_id": "me/first-lora"},
            "output_dir": tmp_path_factory.mktemp("runs") / "first-lora",
        }
    )
    result = hublora.train(config)
    assert result.pushed is not None
    return result.pushed.repo_id


def test_run_generates_and_the_image_says_how(adapter, cli, tmp_path: Path) -> None:
    done = cli("run", adapter, "Totoro", "--seed", "5", "--json")
    assert done.returncode == 0, done.stderr
    (name,) = json.loads(done.stdout)["files"]
    with Image.open(tmp_path / name) as image:
        facts = json.loads(image.text["hublora"])
    assert facts["sampling"]["prompt"] == "Totoro"
    assert facts["sampling"]["seed"] == 5
    assert facts["adapters"][0]["ref"].startswith("me/first-lora@")


def test_the_card_lists_what_differs_and_claims_no_licence_for_the_images(adapter) -> None:
    from huggingface_hub import hf_hub_download

    import hublora

    card = Path(hf_hub_download(adapter, "README.md")).read_text("utf-8")
    cells = [line[2:-2].split(" | ") for line in card.splitlines() if line.startswith("| ")]
    rows = {row[0]: row[1] for row in cells if len(row) == 2}
    assert rows[r"adapter.conv\_rank"] == "2"
    assert rows["adapter.dropout"] == "0.1"
    assert not {name for name in rows if name.startswith(("hub.", "validation.", "checkpoint."))}
    assert r"data.folder\_repeats" not in rows
    assert "images_license: unknown" in card
    licenses = hublora.load(adapter).hublora.licenses
    assert licenses.licenses[f"images of {adapter}"] is None
    assert licenses.commercial is None


def test_several_adapters_are_composed_with_a_grid(adapter, cli, tmp_path: Path) -> None:
    done = cli(
        "run", f"{adapter}:0.7", f"{adapter}:0.5", "a cat", "--num-images", "4", "--grid", "-q"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 5
    assert all((tmp_path / name).is_file() for name in done.stdout.split())


def test_load_returns_the_native_pipeline_on_the_adapters_base(adapter) -> None:
    from diffusers import StableDiffusionPipeline

    import hublora

    pipe = hublora.load(adapter)
    assert type(pipe) is StableDiffusionPipeline
    assert pipe.hublora.base.name == "bases/epsilon"
    assert pipe("Totoro", num_inference_steps=2).images[0].size == (64, 64)
