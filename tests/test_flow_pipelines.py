"""The tiny pipelines of the flow-matching families: they save, load, draw, and are seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.flow_pipelines import FLOW_PIPELINES, krea2, qwen_image


@pytest.mark.parametrize("name", FLOW_PIPELINES)
def test_a_tiny_pipeline_is_filled_and_draws_the_same_once_saved_and_loaded(
    name: str, tmp_path: Path
) -> None:
    build = FLOW_PIPELINES[name]
    built = build()
    for part in built.components.values():
        if isinstance(part, torch.nn.Module):
            for parameter in part.parameters():
                assert parameter.dtype == torch.float32
                assert torch.isfinite(parameter).all()
                assert 0.01 < parameter.abs().max() < 10
    built.save_pretrained(tmp_path, safe_serialization=True)
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*.safetensors")) < 3_000_000
    loaded = type(built).from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)
    images = _draw_twice(loaded)
    assert images.shape == (2, 32, 64, 3)
    assert images.std() > 10
    assert (images[0] != images[1]).mean() > 0.5, "the prompt does not matter"
    assert (images == _draw_twice(build())).all(), "two builds differ"


def test_the_prompt_template_has_as_many_tokens_as_the_real_one() -> None:
    embeds, mask = qwen_image().encode_prompt("a red star", device="cpu")
    assert embeds.shape == (1, 3 + 5, 40), "three words, and the template's end"
    assert mask is None
    embeds, mask = krea2().encode_prompt("a red star", device="cpu")
    assert embeds.shape == (1, 512, 3, 40)
    assert mask[0].nonzero().flatten().tolist() == [0, 1, 2, 507, 508, 509, 510, 511]


def _draw_twice(pipe: Any) -> np.ndarray:
    """Return images, of values from 0 to 255, of two prompts from the same noise."""
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        prompt=["a red star", "a drawing of two blue circles"],
        height=32,
        width=64,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(0) for _ in range(2)],
        max_sequence_length=256,
        output_type="np",
    ).images
    return (images * 255).round()
