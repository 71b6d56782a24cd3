"""Training on a quantised base: the adapter, its file, its card, and where it loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import hublora
from hublora.errors import ConfigError
from hublora.families import family_of_pipeline
from tests.flow_pipelines import FLOW_PIPELINES

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two captioned images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a red cat number {number}")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny-z-image"
    FLOW_PIPELINES["z-image"]().save_pretrained(folder)
    return folder


def train(base: Path, images: Path, folder: Path, notes: list[str], **changes: Any) -> Any:
    settings = {
        "base.model": str(base),
        "data.folder": images,
        "data.resolution": 32,
        "data.cache_dir": folder / "cache",
        "adapter.rank": 2,
        "schedule.max_train_steps": 2,
        "schedule.name": "constant",
        "optimizer.learning_rate": 0.01,
        "validation.prompts": ["a red cat"],
        "validation.num_images": 1,
        "validation.num_inference_steps": 2,
        "output_dir": folder / "run",
    }
    config = hublora.TrainingConfig.from_settings(settings | changes)
    return hublora.train(config, callback=lambda event: notes.append(str(event)))


def generate(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    call = family_of_pipeline(pipe).call_arguments(pipe, "a red cat", "", 3.0)
    generator = torch.Generator().manual_seed(1)
    size = {"width": 32, "height": 32, "num_inference_steps": 2}
    return pipe(**call, **size, generator=generator, output_type="np").images[0]


@pytest.fixture(scope="module")
def plain(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(base, images, tmp_path_factory.mktemp("plain"), [])


@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.3), ("fp8", 0.6)])
def test_the_adapter_is_that_of_the_plain_base_and_says_on_what_it_was_trained(
    kind: str, tolerance: float, base: Path, images: Path, plain: Any, tmp_path: Path
) -> None:
    notes: list[str] = []
    result = train(base, images, tmp_path, notes, **{"base.quantize": kind})
    assert any("denoiser and text encoders are" in note and "instead of" in note for note in notes)
    ours, theirs = load_file(result.folder / WEIGHTS), load_file(plain.folder / WEIGHTS)
    assert ours.keys() == theirs.keys()
    ups = [name for name in ours if name.endswith("lora_B.weight")]
    between = sum((ours[name] - theirs[name]).pow(2).sum() for name in ups).sqrt()
    assert 0 < between < tolerance * sum(theirs[name].pow(2).sum() for name in ups).sqrt()
    assert f"| quantised base | {kind} |" in (result.folder / "README.md").read_text()
    assert f"quantize: {kind}" in (result.folder / "training" / "config.yaml").read_text()
    with safe_open(result.folder / WEIGHTS, "pt") as file:
        assert file.metadata()["hublora.quantize"] == kind
    on_plain = hublora.load(str(result.folder), base=str(base), device="cpu")
    quantised = hublora.load(str(result.folder), base=str(base), device="cpu", quantize=kind)
    image = generate(on_plain)
    assert 0 < np.abs(image - generate(quantised)).mean() < tolerance / 10
    reference = type(on_plain).from_pretrained(base)
    reference.load_lora_weights(result.folder, weight_name=WEIGHTS)
    assert np.abs(image - generate(reference)).max() < 1e-4


def test_its_gallery_is_generated_again_on_the_quantised_base(
    base: Path, images: Path, tmp_path: Path
) -> None:
    result = train(base, images, tmp_path, [], **{"base.quantize": "int8"})
    report = hublora.verify(str(result.folder), base=str(base))
    assert report.passed, report
    assert "at most 0.0 levels" in report.checks[-1].detail
    again = hublora.replay(
        result.folder / "images" / "0.png",
        base=str(base),
        adapters=[result.folder / WEIGHTS],
        output=tmp_path / "again.png",
    )
    assert again.difference == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base.quantize": "nf4"}, 'quantize="nf4" needs a CUDA GPU, and this runs on cpu'),
        ({"base.quantize": "int8", "adapter.init": "pissa"}, "factor the base's own weights"),
        ({"base.quantize": "fp8", "adapter.method": "dora"}, "lengths of the base's own weights"),
    ],
)
def test_what_a_kind_cannot_do_is_refused_before_the_base_is_looked_for(
    changes: dict[str, str], message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(Path("nobody/nothing"), images, tmp_path, [], **changes)


@pytest.mark.parametrize("changes", [{"adapter.method": "lokr"}, {"gradient_checkpointing": True}])
def test_it_works_with_other_settings(
    changes: dict[str, Any], base: Path, images: Path, tmp_path: Path
) -> None:
    result = train(base, images, tmp_path, [], **{"base.quantize": "int8"}, **changes)
    assert result.change > 0


@pytest.mark.parametrize("changes", [{}, {"base.quantize": "int8", "gradient_checkpointing": True}])
def test_with_swapped_blocks_the_result_has_the_same_bytes(
    changes: dict[str, Any], base: Path, images: Path, tmp_path: Path
) -> None:
    whole = train(base, images, tmp_path / "whole", [], **changes)
    notes: list[str] = []
    swapped = train(base, images, tmp_path / "part", notes, **changes, **{"base.offload": "blocks"})
    assert any("on the CPU: swapped blocks are copied within its memory" in note for note in notes)
    for file in (WEIGHTS, "images/0.png"):
        assert (swapped.folder / file).read_bytes() == (whole.folder / file).read_bytes()
    with pytest.raises(ConfigError, match="at most the 6 blocks of this base, got 7"):
        train(base, images, tmp_path / "more", [], **{"base.offload": "blocks:7"})
