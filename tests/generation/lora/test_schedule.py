"""Ways to compose, each against its definition written out with diffusers' own calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapters.adapter import Adapter
from hublora.errors import ConfigError
from hublora.generation.lora.schedule import AdapterSchedule
from hublora.generation.sample import Sampling, sample
from hublora.weights import CompositionMode, Weight
from tests.generation.test_compose import fresh
from tests.lora import ATTENTION, Weighted, apply_adapters, random_adapter, save_adapter

STEPS = 4
PLAN = Sampling("a red star", num_inference_steps=STEPS, guidance_scale=3.0)
NAMES = ["one", "two"]
TARGETS = {"unet": ATTENTION, "text_encoder": ("q_proj",)}


@pytest.fixture
def adapters(pipe: Any) -> list[Adapter]:
    return [random_adapter(pipe, TARGETS, seed=seed) for seed in (1, 2)]


@pytest.fixture
def theirs(bases: Path, adapters: list[Adapter], tmp_path: Path) -> Any:
    """The same base with the adapters one and two, put on by diffusers."""
    pipe = fresh(bases)
    for name, adapter in zip(NAMES, adapters, strict=True):
        pipe.load_lora_weights(save_adapter(adapter, tmp_path / name), adapter_name=name)
    return pipe


def mix(
    pipe: Any, adapters: list[Adapter], weights: list[str], way: CompositionMode = "sum"
) -> AdapterSchedule:
    adapter_schedule = apply_adapters(pipe, [Weighted(one) for one in adapters])
    adapter_schedule.activate(
        adapter_schedule.adapters, [Weight.parse(text) for text in weights], way
    )
    return adapter_schedule


def latents(pipe: Any, callback: Callable[..., Any] | None = None, **inputs: Any) -> torch.Tensor:
    """Return what the pipeline itself draws."""
    inputs = inputs or {"prompt": PLAN.prompt}
    return pipe(
        **inputs,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=callback,
    ).images


def embeds(pipe: Any) -> dict[str, torch.Tensor]:
    """Return the prompt as the text encoder reads it now, for later steps."""
    with torch.no_grad():
        both = pipe.encode_prompt(PLAN.prompt, "cpu", 1, True)
    return dict(zip(("prompt_embeds", "negative_prompt_embeds"), both, strict=True))


def test_switch_is_one_adapter_a_step(pipe: Any, adapters: list[Adapter], theirs: Any) -> None:
    theirs.set_adapters(NAMES, [0.9, 0.5])
    prompt = embeds(theirs)  # read with both

    def by_hand(pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        turn = (step + 1) % 2
        pipe.set_adapters([NAMES[turn]], [(0.9, 0.5)[turn]])
        return tensors

    theirs.set_adapters([NAMES[0]], [0.9])
    wanted = latents(theirs, by_hand, **prompt)
    adapter_schedule = mix(pipe, adapters, ["0.9", "0.5"], "switch")
    first = latents(pipe, adapter_schedule.on_step_end)
    assert torch.allclose(first, wanted, atol=1e-4)
    assert torch.equal(
        latents(pipe, adapter_schedule.on_step_end), first
    )  # it starts as the first one did


def test_composite_averages_what_is_guided(pipe: Any, adapters: list[Adapter], theirs: Any) -> None:
    tokens = torch.randn(2, 32, 32)
    noisy = torch.randn(2, 4, 16, 16)
    alone = []
    for name, weight in zip(NAMES, (0.9, 0.5), strict=True):
        theirs.set_adapters([name], [weight])
        with torch.no_grad():
            without, with_prompt = theirs.unet(noisy, 500, tokens).sample
        alone.append(without + 3.0 * (with_prompt - without))
    adapter_schedule = mix(pipe, adapters, ["0.9", "0.5"], "composite")
    with torch.no_grad():
        (found,) = pipe.unet(noisy, 500, tokens, return_dict=False)
        assert torch.equal(found, pipe.unet(noisy, 500, tokens).sample)
    without, with_prompt = found
    assert torch.allclose(without + 3.0 * (with_prompt - without), sum(alone) / 2, atol=1e-5)
    adapter_schedule.activate(
        adapter_schedule.adapters, [Weight.of(0.9), Weight.of(0.5)]
    )  # and a sum again
    theirs.set_adapters(NAMES, [0.9, 0.5])
    with torch.no_grad():
        found, wanted = (one.unet(noisy, 500, tokens).sample for one in (pipe, theirs))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_weight_moves_over_the_steps(pipe: Any, adapters: list[Adapter], theirs: Any) -> None:
    theirs.set_adapters(NAMES, [0.2, 1.0])
    prompt = embeds(theirs)

    def by_hand(pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe.set_adapters(NAMES, [0.2 + 0.7 * min(step + 1, STEPS - 1) / (STEPS - 1), 1.0])
        return tensors

    wanted = latents(theirs, by_hand, **prompt)
    adapter_schedule = mix(pipe, adapters, ["0.2..0.9", "1"])
    assert torch.allclose(latents(pipe, adapter_schedule.on_step_end), wanted, atol=1e-4)


def test_a_block_has_its_own_weight(pipe: Any, bases: Path) -> None:
    adapter = random_adapter(pipe)
    only = {n: layer for n, layer in adapter.layers["unet"].items() if n.startswith("down_blocks")}
    mix(pipe, [Adapter({"unet": only})], ["0.5"])
    other = fresh(bases)
    mix(other, [adapter], ["0,down:0.5"])
    assert torch.allclose(latents(other), latents(pipe), atol=1e-5)


def test_a_block_without_layers_is_refused(pipe: Any, adapters: list[Adapter]) -> None:
    adapter_schedule = mix(pipe, [random_adapter(pipe)], ["1"])
    before = latents(pipe)
    with pytest.raises(
        ConfigError, match=r"nothing in the block 'text'\. It changes: down\.0, mid"
    ):
        adapter_schedule.set_weights([Weight.parse("1,text:0")])
    assert torch.equal(latents(pipe), before)


def test_what_does_not_act_costs_nothing_and_a_switch_loads_nothing(
    pipe: Any, adapters: list[Adapter]
) -> None:
    adapter_schedule = mix(pipe, adapters, ["1", "1"], "switch")
    where = {name: tensor.data_ptr() for name, tensor in pipe.unet.state_dict().items()}
    ranks = {
        layer.lora_A[adapter_schedule.name].weight.shape[0]
        for layer in pipe.unet.modules()
        if hasattr(layer, "lora_A")
    }
    assert ranks == {3}  # that of one adapter, though two take turns
    latents(pipe, adapter_schedule.on_step_end)
    assert where == {name: tensor.data_ptr() for name, tensor in pipe.unet.state_dict().items()}


def test_an_interrupted_image_leaves_the_next_one_as_it_was(
    pipe: Any, adapters: list[Adapter]
) -> None:
    adapter_schedule = mix(pipe, adapters, ["0.2..0.9", "1"], "switch")
    first = sample(pipe, PLAN, adapter_schedule=adapter_schedule)

    def stop(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(pipe, PLAN, stop, adapter_schedule=adapter_schedule)
    assert sample(pipe, PLAN, adapter_schedule=adapter_schedule).tobytes() == first.tobytes()
