"""Every flow-matching family calls its denoiser as diffusers' own pipeline does."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hublora.errors import AdapterError, ConfigError
from hublora.families import (
    DenoiserInputs,
    family_of_folder,
    family_of_pipeline,
    text_encoders_of,
)
from hublora.generation.conditions import Conditions
from hublora.generation.inputs import OpenedInputs
from hublora.generation.sample import Sampling, image_difference, sample
from hublora.resolution.controlnet_ip_adapter import IpAdapter
from hublora.workflows.train.gallery import PlannedImage
from hublora.workflows.train.gallery_prompts import (
    embed_prompts,
    embedded_inputs,
    release_text_encoders,
)
from tests.flow_pipelines import FLOW_PIPELINES

SIZE, STEPS = 64, 3
NO_GUIDANCE = {"z-image": 0.0, "krea2": 0.0}  # the others count it from 1
FAMILIES = list(FLOW_PIPELINES)


@cache
def pipeline(name: str) -> Any:
    return FLOW_PIPELINES[name]()


def packed(name: str, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return latents as the pipeline takes them."""
    if name.startswith("flux2") or not hasattr(pipe, "_pack_latents"):
        return latents
    result: torch.Tensor = pipe._pack_latents(latents, *latents.shape)
    return result


def unnormalised(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return latents of FLUX.2 klein as its pipeline returns them."""
    spread = torch.sqrt(pipe.vae.bn.running_var + pipe.vae.config.batch_norm_eps)
    mean = pipe.vae.bn.running_mean
    result: torch.Tensor = pipe._unpatchify_latents(
        latents * spread.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
    )
    return result


@pytest.mark.parametrize("layers", [(), (1, 2), (1, 2, 9), (1, 2, -9), (1, 2, "4"), (1, 2, 3, 4)])
def test_krea_s_prompts_are_read_from_layers_that_are_there(layers: tuple[Any, ...]) -> None:
    pipe = FLOW_PIPELINES["krea2"]()
    vars(pipe)["text_encoder_select_layers"] = layers
    with pytest.raises(AdapterError, match="must be 3 numbers from -4 to 4, got "):
        family_of_pipeline(pipe).encode_prompts(pipe, ["a red cat"])


def test_controlnets_and_ip_adapters_are_refused_by_the_family_of_the_base() -> None:
    image = Image.new("RGB", (8, 8))
    control = Conditions(controlnet=torch.nn.Identity(), control_image=image)
    mood = IpAdapter("me/mood", Path(), "a.safetensors", "image_encoder")
    for inputs, named in (
        (OpenedInputs(control), "a ControlNet is used with Stable Diffusion and SDXL only"),
        (OpenedInputs(Conditions(ip_adapter_image=image), mood), "an IP-Adapter is used with"),
    ):
        with pytest.raises(
            ConfigError, match=f"The base is of the family stable-diffusion-3; {named}"
        ):
            inputs.prepare(pipeline("sd3"))


@pytest.mark.parametrize("name", ["krea2", "qwen-image"])
def test_a_vae_with_a_deviation_of_zero_is_refused(name: str) -> None:
    pipe = FLOW_PIPELINES[name]()
    deviations = list(pipe.vae.config.latents_std)
    pipe.vae.register_to_config(latents_std=[0.0, *deviations[1:]])
    with pytest.raises(AdapterError, match=r"latents_std .* other than 0, got 0\.0"):
        family_of_pipeline(pipe).encode_images(pipe, torch.zeros(1, 3, SIZE, SIZE))


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_three_steps_of_the_pipeline_are_three_euler_steps_of_predict(name: str) -> None:
    """It proves sign, time scale, ids, guidance, masks, packing and the normalised latents."""
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    pixels = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    mean, std = family.encode_images(pipe, pixels)
    assert std is None or std.shape == mean.shape
    latents = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    off = NO_GUIDANCE.get(name, 1.0)
    expected = pipe(
        **family.call_arguments(pipe, "a red cat", "", off),
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        latents=packed(name, pipe, latents),
        output_type="latent",
    ).images
    assert expected.std() > 0.1
    lengths = {None, family.padded_length(pipe, ["a red cat"]), longer_length(name, pipe)}
    for length in lengths:
        conditioning = family.encode_prompts(pipe, ["a red cat"], length)
        returned = euler(name, pipe, latents, conditioning)
        assert (returned - expected).abs().max() <= 2e-6, length


def longer_length(name: str, pipe: Any) -> int | None:
    """Return the length to which a prompt is padded beside a longer one, None where to the
    family's own; FLUX, Chroma and Stable Diffusion 3 attend to all of their padding."""
    family = family_of_pipeline(pipe)
    found: int | None = family.padded_length(pipe, ["a red cat", "two dogs on a green hill"])
    if name.startswith(("flux", "chroma", "sd3")):
        assert found is None
        return None
    alone = family.padded_length(pipe, ["a red cat"])
    assert found is not None
    assert alone is not None
    longest: int | None = family.padded_length(pipe, ["a cat " * 2000])
    assert alone < found < 64 < longest == family.text_length  # type: ignore[attr-defined]
    return found


def euler(name: str, pipe: Any, latents: torch.Tensor, conditioning: Any) -> torch.Tensor:
    """Return the latents, as the pipeline returns them, after Euler steps of `predict`."""
    family, sigmas = family_of_pipeline(pipe), pipe.scheduler.sigmas
    for step in range(STEPS):
        inputs = DenoiserInputs(
            latents, sigmas[step].view(1), conditioning, torch.zeros(1, 6), torch.ones(1)
        )
        velocity = family.predict(pipe, pipe.transformer, inputs)
        assert velocity.shape == latents.shape
        latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity
    if name == "flux2-klein":
        return unnormalised(pipe, latents)
    if name == "flux2-dev":
        packed_latents: torch.Tensor = pipe._pack_latents(latents)
        return packed_latents
    return packed(name, pipe, latents)


@pytest.mark.parametrize("name", [*FAMILIES, "stable-diffusion", "xl"])
@pytest.mark.parametrize("negative", ["", "blue"])
def test_an_image_of_embeddings_is_that_of_the_texts(name: str, negative: str, bases: Path) -> None:
    """The text encoders are gone by then."""
    if name in FLOW_PIPELINES:
        pipe = FLOW_PIPELINES[name]()
    else:
        folder = bases / {"stable-diffusion": "epsilon"}.get(name, name)
        pipe = family_of_folder(folder).load(folder, torch.float32)
    family = family_of_pipeline(pipe)
    if name.startswith("flux2"):
        negative = ""
    plan = Sampling("a red cat", negative, 3, 2, 3.0, 32, 32)
    by_text = sample(pipe, plan)
    planned = PlannedImage(plan)
    embedded = embed_prompts(family, pipe, [planned], torch.device("cpu"))
    release_text_encoders(family, pipe)
    assert not text_encoders_of(family, pipe)
    inputs = embedded_inputs(family, pipe, planned, embedded)
    assert inputs is not None
    assert "prompt" not in inputs
    assert image_difference(by_text, sample(pipe, plan, inputs=inputs)) == 0
    other = PlannedImage(Sampling("another", negative, 3, 2, 3.0, 32, 32))
    assert embedded_inputs(family, pipe, other, embedded) is None


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_prompts_of_a_batch_are_those_of_each(name: str) -> None:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    prompts = ["a red cat", "a very long and blue description of a dog"]
    both = family.encode_prompts(pipe, prompts)
    for row, prompt in enumerate(prompts):
        alone = family.encode_prompts(pipe, [prompt])
        assert alone.keys() == both.keys()
        for key, tensor in alone.items():
            assert torch.allclose(tensor[0], both[key][row], atol=1e-5), key


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_batch_is_predicted_as_each_of_its_samples(name: str) -> None:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    conditioning = family.encode_prompts(pipe, ["a red cat", "two blue dogs on a long green hill"])
    shape = family.encode_images(pipe, torch.zeros(1, 3, SIZE, SIZE))[0].shape[1:]
    noisy = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    levels, guidance = torch.tensor([0.9, 0.4]), torch.tensor([1.0, 3.5])
    sizes = torch.zeros(2, 6)
    both = family.predict(
        pipe, pipe.transformer, DenoiserInputs(noisy, levels, conditioning, sizes, guidance)
    )
    for row in range(2):
        one = slice(row, row + 1)
        alone = family.predict(
            pipe,
            pipe.transformer,
            DenoiserInputs(
                noisy[one],
                levels[one],
                {key: tensor[one] for key, tensor in conditioning.items()},
                sizes[one],
                guidance[one],
            ),
        )
        assert torch.allclose(alone, both[one], atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_pipeline_takes_the_arguments(name: str) -> None:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    known = inspect.signature(pipe.__call__).parameters
    assert set(family.call_arguments(pipe, "a cat", "", 4.0)) <= set(known)
    if "negative_prompt" in known:
        given = family.call_arguments(pipe, "a cat", "a dog", 4.0)
        assert given["negative_prompt"] == "a dog"
        assert set(given) <= set(known)
    else:
        with pytest.raises(ConfigError, match="takes no negative prompt, got 'a dog'"):
            family.call_arguments(pipe, "a cat", "a dog", 4.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_of_the_base_are_known_and_targeted(name: str) -> None:
    """Every linear layer has a name in the original, and every default target is one."""
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    layers = [
        layer
        for layer, module in pipe.transformer.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    unknown = [layer for layer in layers if not family.names.knows(layer)]
    assert not unknown
    stacked = [one for stack in family.names.native_layers(layers).values() for one in stack]
    assert sorted(stacked) == sorted(layers)
    for target in family.default_targets["transformer"]:
        ending = target.rpartition("*")[2].removeprefix(".")
        assert any(layer.endswith(ending) for layer in layers), target


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_counted_as_the_text_encoder_reads_them(name: str) -> None:
    pipe = pipeline(name)
    family = family_of_pipeline(pipe)
    short, long = family.count_tokens(pipe, ["cat", "cat " * 1100])
    assert 0 < short < family.max_tokens(pipe) < long


@pytest.mark.parametrize(
    ("layers", "dual", "architecture"),
    [(24, (), "3-m"), (24, (0, 1), "3-5-medium"), (38, (), "3-5-large")],
)
def test_the_versions_of_stable_diffusion_3_are_told_apart(
    layers: int, dual: tuple[int, ...], architecture: str
) -> None:
    pipe = FLOW_PIPELINES["sd3"]()
    pipe.transformer.register_to_config(num_layers=layers, dual_attention_layers=dual)
    found = family_of_pipeline(pipe).architecture(pipe)
    assert found == f"stable-diffusion-{architecture}/lora"
