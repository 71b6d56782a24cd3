"""Two text encoders: weighted prompts, learned tokens and mixed adapters on Stable Diffusion XL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hublora.adapter_weights import Weight
from hublora.adapters.embeddings import read_tokens
from hublora.generation import prompts
from hublora.generation.sample import Sampling, sample
from hublora.generation.token_embeddings import add_tokens
from tests.lora import Weighted, apply_adapters, random_adapter


@pytest.fixture
def xl(bases: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(bases / "xl")


def test_without_weights_the_library_encodes_as_the_pipeline_does(xl: Any) -> None:
    found = prompts.encode(xl, "a red star", "blue")
    with torch.no_grad():
        wanted = xl.encode_prompt("a red star", negative_prompt="blue", device="cpu")
    names = ("prompt_embeds", "negative_prompt_embeds")
    names += tuple(name.replace("prompt_", "pooled_prompt_") for name in names)
    for name, tensor in zip(names, wanted, strict=True):
        assert torch.allclose(found[name], tensor, atol=1e-5), name


def test_a_token_is_learned_by_both_text_encoders(xl: Any, tmp_path: Path) -> None:
    widths = [
        e.get_input_embeddings().weight.shape[1] for e in (xl.text_encoder, xl.text_encoder_2)
    ]
    vectors = {f"clip_{name}": torch.randn(1, w) for name, w in zip("lg", widths, strict=True)}
    save_file(vectors, tmp_path / "tokens.safetensors")
    (token,) = add_tokens(xl, read_tokens(tmp_path / "tokens.safetensors"), "me/toy")["<s0>"]
    for tokenizer, encoder, tensor in zip(
        (xl.tokenizer, xl.tokenizer_2),
        (xl.text_encoder, xl.text_encoder_2),
        vectors.values(),
        strict=True,
    ):
        (row,) = tokenizer(token).input_ids[1:-1]
        assert torch.equal(encoder.get_input_embeddings().weight[row], tensor[0])


def test_adapters_are_mixed(xl: Any) -> None:
    parts = [Weighted(random_adapter(xl, seed=seed)) for seed in (1, 2)]
    adapter_schedule = apply_adapters(xl, parts)
    plan = Sampling("a red star", num_inference_steps=2)
    weights = [Weight.parse("0.2..1"), Weight.of(0.5)]
    images = set()
    for way in ("composite", "sum", "switch"):
        adapter_schedule.activate(adapter_schedule.adapters, weights, way)  # type: ignore[arg-type]
        images.add(sample(xl, plan).tobytes())
    assert len(images) == 3
