"""What is cached of a flow-matching family: its own dtype, no padding that is never seen."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

import hublora
from hublora.training.accelerator import weight_dtype
from hublora.workflows.train.prepare import encode, prepare_run
from tests.flow_pipelines import FLOW_PIPELINES
from tests.tiny import save_images

# Tokens of every prompt embedding where the denoiser attends to padding.
ATTENDS_TO_PADDING = {"chroma": 512, "flux-dev": 512, "flux2-klein": 512, "sd3": 32 + 256}


def header(folder: Path) -> dict[str, Any]:
    import json

    content = (folder / "rows.safetensors").read_bytes()
    return dict(json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]]))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "bf16") for name in ("z-image", "qwen-image", "krea2")),
        *((name, "bf16") for name in ATTENDS_TO_PADDING),
        ("z-image", "no"),
    ],
)
def test_texts_are_cached_as_long_as_the_longest_in_the_dtype_of_the_training(
    name: str, precision: str, tmp_path: Path
) -> None:
    FLOW_PIPELINES[name]().save_pretrained(tmp_path / "base")
    config = hublora.TrainingConfig.from_settings(
        {
            "base.model": str(tmp_path / "base"),
            "data.folder": save_images(tmp_path / "images", 2),
            "data.resolution": 32,
            "data.cache_dir": tmp_path / "cache",
            "mixed_precision": precision,
            "schedule.max_train_steps": 1,
            "output_dir": tmp_path / "run",
        }
    )
    ready = prepare_run(config, None, lambda event: None)
    data = encode(ready.config, ready.base, ready.pipe, ready.source, ready.accelerator.device)
    (latents,) = (tmp_path / "cache" / "latents").glob("*/")
    kept = header(latents)
    # The posterior's mode needs no standard deviation: half of the cache.
    assert set(kept) - {"__metadata__"} == (
        {"mean"} if name in ("z-image", "flux2-klein") else {"mean", "std"}
    )
    (prompts,) = (tmp_path / "cache" / "prompts").glob("*/")
    fields = header(prompts)
    expected = str(weight_dtype(ready.accelerator)).replace("torch.", "")
    stated = {"bfloat16": "BF16", "float32": "F32"}[expected]
    assert {field["dtype"] for field in fields.values()} == {stated}
    family = ready.base.family
    captions = [caption for captions in data.captions for caption in captions]
    embeds = next(field for key, field in fields.items() if "embeds" in key or "states" in key)
    length = family.padded_length(ready.pipe, captions)
    if name in ATTENDS_TO_PADDING:
        assert length is None
        assert embeds["shape"][1] == ATTENDS_TO_PADDING[name]
        return
    assert embeds["shape"][1] == length
    mask = next(tensor for key, tensor in data.prompts([0, 1], [0, 0]).items() if "mask" in key)
    assert mask.bool().any(dim=0).all(), "a token that no caption has"
