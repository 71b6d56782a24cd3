"""What the Stable Diffusion XL family says of a base agrees with diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.families import FAMILIES, DenoiserInputs, family_of_folder, family_of_pipeline

FAMILY = FAMILIES["stable-diffusion-xl"]


@pytest.fixture(scope="module")
def pipe(bases: Path) -> Any:
    return FAMILY.load(bases / "xl", torch.float32)


def test_a_base_is_recognized_by_its_pipeline(bases: Path, pipe: Any) -> None:
    assert family_of_folder(bases / "xl") is FAMILY
    assert family_of_pipeline(pipe) is FAMILY


def test_prompts_are_encoded_as_the_pipeline_encodes_them(pipe: Any) -> None:
    prompts = ["a red star", "", "word " * 200]  # the last one is cut
    with torch.no_grad():
        ours = FAMILY.encode_prompts(pipe, prompts)
        hidden, _, pooled, _ = pipe.encode_prompt(prompts, device="cpu")
    assert torch.equal(ours["encoder_hidden_states"], hidden)
    assert torch.equal(ours["text_embeds"], pooled)
    assert hidden.shape[-1] == pipe.unet.config.cross_attention_dim


def test_sizes_and_crops_reach_the_denoiser_as_the_pipeline_passes_them(pipe: Any) -> None:
    with torch.no_grad():
        conditioning = FAMILY.encode_prompts(pipe, ["a red star"])
        noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        frame = ((128, 160), (0, 8), (64, 64))
        time_ids = pipe._get_add_time_ids(
            *frame, torch.float32, text_encoder_projection_dim=conditioning["text_embeds"].shape[-1]
        )
        theirs = pipe.unet(
            noisy,
            torch.tensor([7]),
            conditioning["encoder_hidden_states"],
            added_cond_kwargs={"text_embeds": conditioning["text_embeds"], "time_ids": time_ids},
        ).sample
        ours, elsewhere = (
            FAMILY.predict(
                pipe, pipe.unet, DenoiserInputs(noisy, torch.tensor([7]), conditioning, sizes)
            )
            for sizes in (time_ids, time_ids + torch.tensor([0, 0, 0, 8, 0, 0]))
        )
    assert torch.equal(ours, theirs)
    assert not torch.equal(elsewhere, theirs)


def test_sizes_are_those_that_the_pipeline_accepts(pipe: Any) -> None:
    assert FAMILY.resolution(pipe) == 64
    assert FAMILY.size_step(pipe) == 8


def test_the_names_of_its_parts_are_those_of_the_pipeline(pipe: Any) -> None:
    for component in (FAMILY.denoiser, FAMILY.vae, *FAMILY.text_encoders):
        assert component in pipe.components
    for component, targets in FAMILY.default_targets.items():
        names = [name for name, _ in getattr(pipe, component).named_modules()]
        for target in targets:
            assert any(name.endswith(f".{target}") for name in names)
        assert component in FAMILY.names.kohya_prefixes
