"""Weighted and long prompts, through compel."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hublora.generation import prompts


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red star", [("a red star", 1.0)]),
        ("a (red:1.5) star", [("a", 1.0), ("red", 1.5), ("star", 1.0)]),
        ("(a:0.5)", [("a", 0.5)]),
        (r"a \(b:2)", [(r"a \(b:2)", 1.0)]),
        ("a (b) c++ :)", [("a (b) c++ :)", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_parts_and_weights(prompt: str, parts: list[tuple[str, float]]) -> None:
    assert prompts.fragments(prompt) == parts


def plain(pipe: Any, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return pipe.encode_prompt(prompt, "cpu", 1, False)[0]


def test_without_weights_the_library_encodes_as_the_pipeline_does(pipe: Any) -> None:
    found = prompts.encode(pipe, "a red star", "blue")
    assert torch.allclose(found["prompt_embeds"], plain(pipe, "a red star"), atol=1e-5)
    assert torch.allclose(found["negative_prompt_embeds"], plain(pipe, "blue"), atol=1e-5)


def test_a_weight_moves_the_embedding_away_and_towards(pipe: Any) -> None:
    base, more, less = (
        prompts.encode(pipe, f"a (red:{w}) star", "")["prompt_embeds"] for w in (1, 1.5, 0.5)
    )
    assert (more - base).abs().max() > 1e-3
    assert (less - base).abs().max() > 1e-3


def test_a_long_prompt_is_whole_and_both_prompts_have_its_length(pipe: Any) -> None:
    long = "a red star and " * 20
    found = prompts.encode(pipe, long, "")
    length = found["prompt_embeds"].shape[1]
    assert length > pipe.tokenizer.model_max_length
    assert found["negative_prompt_embeds"].shape[1] == length
    image = pipe(**found, num_inference_steps=1, output_type="latent").images
    assert torch.isfinite(image).all()
