"""Every family of edit models gives its denoiser references as diffusers' own pipeline does."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hublora.families import DenoiserInputs, family_of_pipeline
from tests.flow_pipelines import EDIT_PIPELINES

STEPS, WIDTH, HEIGHT = 3, 64, 80
SIDE = 64  # of references of Qwen-Image-Edit here, in place of 1024
REFERENCES = {"flux-kontext": 1, "qwen-image-edit": 1}  # the others are given two


@cache
def pipeline(name: str) -> Any:
    return EDIT_PIPELINES[name]()


@pytest.fixture(autouse=True)
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sizes that diffusers' Qwen pipelines give references small."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    dimensions = edit.calculate_dimensions
    monkeypatch.setattr(edit, "calculate_dimensions", lambda _, ratio: dimensions(SIDE**2, ratio))
    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", SIDE**2)
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", (SIDE // 2) ** 2)


def references(name: str) -> list[Image.Image]:
    """Return references whose sizes are neither equal nor multiples of 16."""
    rng = np.random.default_rng(0)
    sizes = ((97, 70), (66, 101))[: REFERENCES.get(name, 2)]
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def conditioning_of(name: str, prompt: str, images: list[Image.Image]) -> Any:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    if family.references.in_prompts:
        return family.encode_instruction(pipe, prompt, images)
    return family.encode_prompts(pipe, [prompt])


def latents_of(name: str, images: list[Image.Image], side: int) -> list[torch.Tensor]:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    fitted = [family.fit_reference(pipe, image, side) for image in images]
    return [family.encode_images(pipe, pixels_of(image))[0] for image in fitted]


def call(name: str, images: list[Image.Image]) -> dict[str, Any]:
    """Return the pipeline's own arguments; references are small already."""
    if not images:
        return {}
    if name == "flux-kontext":  # whose preferred sizes are large
        fitted = family_of_pipeline(pipeline(name)).fit_reference(pipeline(name), images[0], SIDE)
        return {"image": fitted, "_auto_resize": False}
    return {"image": images[0] if len(images) == 1 else images}


@pytest.mark.parametrize("name", EDIT_PIPELINES)
@torch.no_grad()
def test_three_steps_of_the_pipeline_are_three_euler_steps_of_predict(name: str) -> None:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    images = references(name)
    shape = family.encode_images(pipe, torch.zeros(1, 3, HEIGHT, WIDTH))[0].shape
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    flux2 = name.startswith("flux2")
    expected = pipe(
        **family.call_arguments(pipe, "a red cat", "", 1.0),
        **call(name, images),
        **({"max_area": WIDTH * HEIGHT} if name == "flux-kontext" else {}),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        latents=latents if flux2 else pipe._pack_latents(latents, *latents.shape),
        output_type="latent",
    ).images
    sigmas, conditioning = pipe.scheduler.sigmas, conditioning_of(name, "a red cat", images)
    given = latents_of(name, images, SIDE if name == "flux-kontext" else 1024)
    for step in range(STEPS):
        inputs = DenoiserInputs(
            latents,
            sigmas[step].view(1),
            conditioning,
            torch.zeros(1, 6),
            torch.ones(1),
            given,
        )
        velocity = family.predict(pipe, pipe.transformer, inputs)
        latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity
    if name == "flux2-klein":
        spread = torch.sqrt(pipe.vae.bn.running_var + pipe.vae.config.batch_norm_eps)
        mean = pipe.vae.bn.running_mean.view(1, -1, 1, 1)
        returned = pipe._unpatchify_latents(latents * spread.view(1, -1, 1, 1) + mean)
    elif flux2:
        returned = pipe._pack_latents(latents)
    else:
        returned = pipe._pack_latents(latents, *latents.shape)
    assert expected.std() > 0.1
    assert (returned - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("name", EDIT_PIPELINES)
@torch.no_grad()
def test_a_batch_is_predicted_as_each_of_its_samples(name: str) -> None:
    """With references of two sizes, and prompts of two lengths."""
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    images = references(name)
    prompts = ["make it a red cat", "two blue dogs on a long green hill"]
    length = 512
    if family.references.in_prompts:
        sizes = [image.size for image in images]
        length = max(family.count_instruction_tokens(pipe, prompts, sizes))
        rows = [family.encode_instruction(pipe, one, images, length) for one in prompts]
    else:
        rows = [family.encode_prompts(pipe, [one]) for one in prompts]
    both = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    assert both["encoder_hidden_states"].shape[1] == length
    given = [torch.cat([one, one.flip(-1)]) for one in latents_of(name, images, 1024)]
    shape = family.encode_images(pipe, torch.zeros(1, 3, HEIGHT, WIDTH))[0].shape[1:]
    noisy = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    levels, guidance, sizes = torch.tensor([0.9, 0.4]), torch.tensor([1.0, 3.5]), torch.zeros(2, 6)
    together = family.predict(
        pipe, pipe.transformer, DenoiserInputs(noisy, levels, both, sizes, guidance, given)
    )
    for row in range(2):
        one = slice(row, row + 1)
        inputs = DenoiserInputs(
            noisy[one],
            levels[one],
            {key: tensor[one] for key, tensor in both.items()},
            sizes[one],
            guidance[one],
            [latents[one] for latents in given],
        )
        alone = family.predict(pipe, pipe.transformer, inputs)
        assert torch.allclose(alone, together[one], atol=1e-4)
    fewer = DenoiserInputs(noisy, levels, both, sizes, guidance, [])
    other = family.predict(pipe, pipe.transformer, fewer)
    assert (other - together).abs().max() > 1e-3, "the references do not matter"


@pytest.mark.parametrize("name", ["qwen-image-edit", "qwen-image-edit-plus"])
@torch.no_grad()
def test_the_text_encoder_sees_the_references(name: str) -> None:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    images = references(name)
    for prompt in ("a", "make two red circles blue"):
        sizes = [image.size for image in images]
        counted = family.count_instruction_tokens(pipe, [prompt], sizes)
        seen = family.encode_instruction(pipe, prompt, images)["encoder_hidden_states"]
        assert counted == [seen.shape[1]]
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    other = family.encode_instruction(pipe, prompt, mirrored)["encoder_hidden_states"]
    assert (seen - other).abs().max() > 1e-2


def test_the_template_of_edits_has_as_many_tokens_as_the_real_one() -> None:
    pipe = pipeline("qwen-image-edit-plus")
    start = pipe.prompt_template_encode.partition("{}")[0]
    assert len(pipe.tokenizer(start).input_ids) == pipe.prompt_template_encode_start_idx
