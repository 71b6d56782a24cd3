"""What the Stable Diffusion family says of a base agrees with diffusers' own pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hublora.errors import AdapterError
from hublora.families import FAMILIES, family_of_folder, family_of_pipeline

FAMILY = FAMILIES["stable-diffusion"]


@pytest.fixture(scope="module")
def pipe(bases: Path) -> Any:
    import torch

    return FAMILY.load(bases / "epsilon", torch.float32)


def test_a_base_is_recognized_by_its_pipeline(bases: Path, pipe: Any) -> None:
    assert family_of_folder(bases / "epsilon") is FAMILY
    assert family_of_pipeline(pipe) is FAMILY


def test_a_pipeline_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "CookingPipeline"}))
    with pytest.raises(AdapterError, match="CookingPipeline") as caught:
        family_of_folder(tmp_path)
    assert "StableDiffusionPipeline" in str(caught.value.hint)


def test_components_may_be_loaded_in_types_of_their_own(bases: Path) -> None:
    import torch

    loaded = FAMILY.load(bases / "epsilon", {"default": torch.bfloat16, "vae": torch.float32})
    assert loaded.unet.dtype == loaded.text_encoder.dtype == torch.bfloat16
    assert loaded.vae.dtype == torch.float32


def test_prompts_are_encoded_as_the_pipeline_encodes_them(pipe: Any) -> None:
    import torch

    prompts = ["a red star", "", "word " * 200]  # the last one is cut
    with torch.no_grad():
        ours = FAMILY.encode_prompts(pipe, prompts)["encoder_hidden_states"]
        theirs, _ = pipe.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    assert torch.equal(ours, theirs)


def test_images_are_encoded_into_the_scaled_posterior(pipe: Any) -> None:
    import torch

    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        mean, std = FAMILY.encode_images(pipe, pixels)
        posterior = pipe.vae.encode(pixels).latent_dist
        sample = posterior.sample(torch.Generator().manual_seed(1))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    scaled = sample * pipe.vae.config.scaling_factor
    assert torch.allclose(mean + std * noise, scaled, atol=1e-6)


def test_a_vae_that_states_means_by_channel_is_decoded_back_by_its_pipeline(bases: Path) -> None:
    """`StableDiffusionXLPipeline` decodes latents · std / scaling_factor + mean."""
    import torch

    family = FAMILIES["stable-diffusion-xl"]
    xl: Any = family.load(bases / "xl", torch.float32)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    means, deviations = [0.1, -0.2, 0.3, 0.4], [1.5, 2.0, 0.5, 3.0]
    xl.vae.register_to_config(latents_mean=means, latents_std=deviations)
    with torch.no_grad():
        mean, std = family.encode_images(xl, pixels)
        posterior = xl.vae.encode(pixels).latent_dist
    deviation = torch.tensor(deviations).view(1, 4, 1, 1)
    undone = mean * deviation / xl.vae.config.scaling_factor
    undone = undone + torch.tensor(means).view(1, 4, 1, 1)
    assert torch.allclose(undone, posterior.mean, atol=1e-6)
    assert std is not None
    assert torch.allclose(std * deviation, posterior.std * xl.vae.config.scaling_factor, atol=1e-6)


@pytest.mark.parametrize("scale", [0, 0.0, float("nan"), "0.18", None])
def test_a_vae_whose_latents_would_all_be_the_same_is_refused(bases: Path, scale: Any) -> None:
    import torch

    pipe = FAMILY.load(bases / "epsilon", torch.float32)
    pipe.vae.register_to_config(scaling_factor=scale)
    with pytest.raises(AdapterError, match=f"scaling_factor .* other than 0, got {scale!r}"):
        FAMILY.encode_images(pipe, torch.zeros(1, 3, 64, 64))


def test_tokens_are_counted_with_their_markers_before_the_cut(pipe: Any) -> None:
    (none, many) = FAMILY.count_tokens(pipe, ["", "a red star " * 50])
    assert none == 2
    assert many > FAMILY.max_tokens(pipe) == pipe.tokenizer.model_max_length


@pytest.mark.parametrize(
    ("base", "prediction", "last"),
    [("epsilon", "epsilon", 0.0047), ("velocity", "v_prediction", 0)],
)
def test_the_noising_process_is_the_bases_own(
    base: str, prediction: str, last: float, bases: Path
) -> None:
    import torch

    loaded = FAMILY.load(bases / base, torch.float32)
    found: Any = FAMILY.parameterization(loaded)
    assert found.name == prediction
    assert found.alphas_cumprod.shape == (1000,)
    assert (found.alphas_cumprod.diff() < 0).all()
    assert found.alphas_cumprod[-1].item() == pytest.approx(last, abs=1e-4)


def test_a_base_that_predicts_the_image_itself_is_refused(bases: Path) -> None:
    import torch
    from diffusers import DDPMScheduler

    loaded = FAMILY.load(bases / "epsilon", torch.float32)
    loaded.scheduler = DDPMScheduler(prediction_type="sample")
    with pytest.raises(AdapterError, match="sample"):
        FAMILY.parameterization(loaded)


def test_sizes_are_those_that_the_pipeline_accepts(pipe: Any) -> None:
    assert FAMILY.resolution(pipe) == 64
    assert FAMILY.size_step(pipe) == 8
    size = 64 + FAMILY.size_step(pipe)
    image = pipe("x", width=size, height=size, num_inference_steps=1).images[0]
    assert image.size == (size, size)


@pytest.mark.parametrize(
    ("width", "prediction", "expected"),
    [
        (768, "epsilon", "stable-diffusion-v1/lora"),
        (1024, "epsilon", "stable-diffusion-v2-512/lora"),
        (1024, "v_prediction", "stable-diffusion-v2-768-v/lora"),
    ],
)
def test_the_architecture_has_its_modelspec_name(
    width: int, prediction: str, expected: str
) -> None:
    from types import SimpleNamespace

    shape = SimpleNamespace(
        unet=SimpleNamespace(config=SimpleNamespace(cross_attention_dim=width)),
        scheduler=SimpleNamespace(config=SimpleNamespace(prediction_type=prediction)),
    )
    assert FAMILY.architecture(shape) == expected


def test_the_names_of_its_parts_are_those_of_the_pipeline(pipe: Any) -> None:
    for component in (FAMILY.denoiser, FAMILY.vae, *FAMILY.text_encoders):
        assert component in pipe.components
    for component, targets in FAMILY.default_targets.items():
        names = [name for name, _ in getattr(pipe, component).named_modules()]
        for target in targets:
            assert any(name.endswith(f".{target}") for name in names)
        assert component in FAMILY.names.kohya_prefixes
