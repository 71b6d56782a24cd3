"""The whole line on edit models: train on pairs, verify, use with references, replay."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hublora
from hublora.errors import ConfigError
from tests.flow_pipelines import EDIT_PIPELINES

STEPS, SIDE = 2, 64


def save_base(name: str, folder: Path) -> Path:
    base = folder / f"tiny-{name}"
    if not base.exists():
        EDIT_PIPELINES[name]().save_pretrained(base)
        index = base / "model_index.json"
        entries = json.loads(index.read_text())
        if "processor" in entries:  # as with torchvision, which the one for videos needs
            entries["processor"] = ["transformers", "Qwen2VLProcessor"]
            index.write_text(json.dumps(entries))
    return base


@pytest.fixture(autouse=True)
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sizes that diffusers' Qwen pipelines give references small."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    dimensions = edit.calculate_dimensions
    monkeypatch.setattr(edit, "calculate_dimensions", lambda _, ratio: dimensions(SIDE**2, ratio))
    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", SIDE**2)
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", (SIDE // 2) ** 2)


def noise(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two pairs: one of one size, and a square with a wide reference."""
    folder = tmp_path_factory.mktemp("pairs")
    for number, size in enumerate(((64, 64), (96, 64))):
        noise(number, 64, 64).save(folder / f"{number}.png")
        noise(10 + number, *size).save(folder / f"{number}.control.png")
        (folder / f"{number}.txt").write_text(f"make cat {number} red")
    return folder


def settings(base: Path, data: dict[str, Any], folder: Path, **sections: Any) -> Any:
    return hublora.TrainingConfig.from_tree(
        {
            "base": {"model": str(base)},
            "data": {"resolution": SIDE, **data},
            "adapter": {"rank": 2, "alpha": 4.0},
            "schedule": {"max_train_steps": STEPS, "name": "constant"},
            "optimizer": {"learning_rate": 0.1},
            "validation": {"num_images": 2, "num_inference_steps": STEPS},
            "output_dir": folder / "run",
            **sections,
        }
    )


@pytest.mark.parametrize("name", ["flux-kontext", "flux2-klein", "qwen-image-edit-plus"])
def test_it_is_trained_on_pairs_and_used_with_a_reference(
    name: str, pairs: Path, tmp_path: Path
) -> None:
    base = save_base(name, tmp_path)
    notes: list[str] = []
    config = settings(base, {"folder": pairs}, tmp_path)
    result = hublora.train(config, callback=lambda event: notes.append(str(event)))
    assert any("each image of pairs" in note for note in notes)
    assert any("1 image has a reference of another aspect ratio" in note for note in notes)
    check_card(name, (result.folder / "README.md").read_text())
    report = hublora.verify(str(result.folder), base=str(base))
    assert report.passed, report
    reference = pairs / "1.control.png"
    (path,) = hublora.run(
        [str(result.folder)],
        "make it red",
        base=str(base),
        reference=reference,
        output=tmp_path / "x.png",
        steps=STEPS,
        width=64,
        height=32,
    )
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "x.png")
    with pytest.raises(ConfigError, match=r"was generated from '1\.control\.png'"):
        hublora.replay(
            moved, base=str(base), adapters=[result.folder / "pytorch_lora_weights.safetensors"]
        )
    again = hublora.replay(
        moved,
        base=str(base),
        adapters=[result.folder / "pytorch_lora_weights.safetensors"],
        reference=reference,
    )
    assert again.difference == 0


def check_card(name: str, card: str) -> None:
    """Check that its calls have references, as the pipeline takes them."""
    import diffusers
    import yaml

    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "image-to-image"
    assert "image-to-image" in front["tags"]
    snippets = [part.partition("```")[0] for part in card.split("```python")[1:]]
    assert len(snippets) == 2
    for snippet in snippets:
        assert 'image=load_image("image.png")' in snippet
        assert "prompt=" in snippet
        compile(snippet, "card", "exec")
    assert "--reference image.png" in card
    kind = type(EDIT_PIPELINES[name]())
    call = re.search(r"image = pipe\(\n(.*?)\n\)", snippets[1], re.S)
    assert call is not None
    given = set(re.findall(r"^    (\w+)=", call[1], re.M))
    assert given <= set(inspect.signature(kind.__call__).parameters)
    assert getattr(diffusers, kind.__name__) is kind
