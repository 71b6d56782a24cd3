"""Ways to compose, each against its definition written out with diffusers' own calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapters.adapter import Adapter
from hublora.errors import ConfigError
from hublora.generation.compose import Part, apply_adapters
from hublora.generation.mixing import Mixer, Way
from hublora.generation.sample import Sampling, sample
from hublora.generation.weights import Weight
from tests.lora import ATTENTION, random_adapter

STEPS = 4
PLAN = Sampling("a red star", num_inference_steps=STEPS, guidance_scale=3.0)
TARGETS = {"unet": ATTENTION, "text_encoder": ("q_proj",)}


@pytest.fixture
def names(pipe: Any) -> list[str]:
    """Two adapters on `pipe`."""
    parts = [Part(random_adapter(pipe, TARGETS, seed=seed)) for seed in (1, 2)]
    return apply_adapters(pipe, parts, "the base")


def mix(pipe: Any, names: list[str], weights: list[str], way: Way = "sum") -> Mixer:
    return Mixer(pipe, names, [Weight.parse(text) for text in weights], way)


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


def test_switch_is_one_adapter_a_step(pipe: Any, names: list[str]) -> None:
    pipe.set_adapters(names, [0.9, 0.5])
    prompt = embeds(pipe)  # read with both

    def by_hand(pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        turn = (step + 1) % 2
        pipe.set_adapters([names[turn]], [(0.9, 0.5)[turn]])
        return tensors

    pipe.set_adapters([names[0]], [0.9])
    wanted = latents(pipe, by_hand, **prompt)
    mixer = mix(pipe, names, ["0.9", "0.5"], "switch")
    for _ in range(2):  # the second picture starts as the first one did
        assert torch.equal(latents(pipe, mixer.on_step_end), wanted)


def test_composite_averages_what_is_guided(pipe: Any, names: list[str]) -> None:
    tokens = torch.randn(2, 32, 32)
    noisy = torch.randn(2, 4, 16, 16)
    alone = []
    for name, weight in zip(names, (0.9, 0.5), strict=True):
        pipe.set_adapters([name], [weight])
        with torch.no_grad():
            without, with_prompt = pipe.unet(noisy, 500, tokens).sample
        alone.append(without + 3.0 * (with_prompt - without))
    mix(pipe, names, ["0.9", "0.5"], "composite")
    with torch.no_grad():
        (found,) = pipe.unet(noisy, 500, tokens, return_dict=False)
        assert torch.equal(found, pipe.unet(noisy, 500, tokens).sample)
    without, with_prompt = found
    assert torch.allclose(without + 3.0 * (with_prompt - without), sum(alone) / 2, atol=1e-5)


def test_a_weight_moves_over_the_steps(pipe: Any, names: list[str]) -> None:
    pipe.set_adapters(names, [0.2, 1.0])
    prompt = embeds(pipe)

    def by_hand(pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe.set_adapters(names, [0.2 + 0.7 * min(step + 1, STEPS - 1) / (STEPS - 1), 1.0])
        return tensors

    wanted = latents(pipe, by_hand, **prompt)
    mixer = mix(pipe, names, ["0.2..0.9", "1"])
    assert torch.allclose(latents(pipe, mixer.on_step_end), wanted, atol=1e-5)


def test_a_block_has_its_own_weight(pipe: Any, bases: Path) -> None:
    adapter = random_adapter(pipe)
    only = {n: layer for n, layer in adapter.layers["unet"].items() if n.startswith("down_blocks")}
    (name,) = apply_adapters(pipe, [Part(Adapter({"unet": only}), 0.5)], "the base")
    wanted = latents(pipe)
    pipe.delete_adapters(name)
    names = apply_adapters(pipe, [Part(adapter)], "the base")
    mix(pipe, names, ["0,down:0.5"])
    assert torch.allclose(latents(pipe), wanted, atol=1e-5)


def test_a_block_without_layers_is_refused(pipe: Any) -> None:
    names = apply_adapters(pipe, [Part(random_adapter(pipe))], "the base")
    with pytest.raises(
        ConfigError, match=r"nothing in the block 'text'\. It changes: down\.0, mid"
    ):
        mix(pipe, names, ["1,text:0"])


@pytest.fixture
def called(pipe: Any, names: list[str]) -> Iterator[list[str]]:
    """Which adapter's matrices are multiplied with, in order."""
    calls: list[str] = []
    hooks = [
        layer.lora_A[name].register_forward_hook(lambda *_, name=name: calls.append(name))
        for layer in pipe.unet.modules()
        if hasattr(layer, "lora_A")
        for name in names
    ]
    yield calls
    for hook in hooks:
        hook.remove()


def test_what_does_not_act_costs_nothing_and_a_switch_loads_nothing(
    pipe: Any, names: list[str], called: list[str]
) -> None:
    mixer = mix(pipe, names, ["1", "1"], "switch")
    where = {name: tensor.data_ptr() for name, tensor in pipe.unet.state_dict().items()}
    latents(pipe, mixer.on_step_end)
    layers = sum(hasattr(layer, "lora_A") for layer in pipe.unet.modules())
    turns = [called[i * layers : (i + 1) * layers] for i in range(STEPS)]
    assert [set(turn) for turn in turns] == [{names[i % 2]} for i in range(STEPS)]
    assert len(called) == STEPS * layers
    assert where == {name: tensor.data_ptr() for name, tensor in pipe.unet.state_dict().items()}


def test_an_interrupted_picture_leaves_the_next_one_as_it_was(pipe: Any, names: list[str]) -> None:
    mixer = mix(pipe, names, ["0.2..0.9", "1"], "switch")
    first = sample(pipe, PLAN, mixer=mixer)

    def stop(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(pipe, PLAN, stop, mixer=mixer)
    assert sample(pipe, PLAN, mixer=mixer).tobytes() == first.tobytes()
