"""Ways to compose, each against its definition written out with diffusers' own calls."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapter_weights import CompositionMode, Weight
from hublora.adapters.adapter import Adapter
from hublora.errors import ConfigError
from hublora.generation.lora.manager import LoraManager
from hublora.generation.lora.schedule import AdapterSchedule
from hublora.generation.sample import Sampling, sample
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
    pipe: Any, adapters: list[Adapter], weights: list[str], mode: CompositionMode = "sum"
) -> AdapterSchedule:
    adapter_schedule = apply_adapters(pipe, [Weighted(one) for one in adapters])
    adapter_schedule.activate(
        adapter_schedule.adapters, [Weight.parse(text) for text in weights], mode
    )
    return adapter_schedule


def latents(pipe: Any, callback: Callable[..., Any] | None = None, **inputs: Any) -> torch.Tensor:
    """Return what the pipeline itself generates, with a callback of its own."""
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
    mix(pipe, adapters, ["0.9", "0.5"], "switch")
    first = latents(pipe)
    assert torch.allclose(first, wanted, atol=1e-4)
    assert torch.equal(latents(pipe), first)  # it starts as the first one did


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
    mix(pipe, adapters, ["0.2..0.9", "1"])
    assert torch.allclose(latents(pipe), wanted, atol=1e-4)


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
    latents(pipe)
    assert where == {name: tensor.data_ptr() for name, tensor in pipe.unet.state_dict().items()}


def test_an_interrupted_image_leaves_the_next_one_as_it_was(
    pipe: Any, adapters: list[Adapter]
) -> None:
    mix(pipe, adapters, ["0.2..0.9", "1"], "switch")
    first = sample(pipe, PLAN)

    def stop(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(pipe, PLAN, stop)
    assert sample(pipe, PLAN).tobytes() == first.tobytes()


SCHEDULERS = {  # second-order ones, with and without timesteps that are listed twice
    "PNDMScheduler": {"skip_prk_steps": True},
    "DDIMScheduler": {},
    "EulerDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "HeunDiscreteScheduler": {},
    "KDPM2DiscreteScheduler": {},
}


class ByHand:
    """A callback that does what a schedule should, with adapters that simply add up.

    Args:
        pipe: Another pipeline of the same base.
        adapters: Two.
        kind: "switch" from one to the other, or "moves" from 0.2 to 0.9.
    """

    def __init__(self, pipe: Any, adapters: list[Adapter], kind: str) -> None:
        self.kind = kind
        self.schedule = apply_adapters(pipe, [Weighted(one) for one in adapters])
        self.fitted = self.schedule.adapters

    def set(self, step: int, steps: int) -> None:
        if self.kind == "switch":
            self.schedule.activate([self.fitted[step % 2]], [Weight.of(1.0)])
        else:
            progress = step / max(steps - 1, 1)
            moved = Weight.of(0.2 + (0.9 - 0.2) * progress)
            self.schedule.activate(self.fitted, [moved, Weight.of(1.0)])

    def __call__(self, pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.set(min(step + 1, pipe.num_timesteps - 1), pipe.num_timesteps)
        return tensors


@pytest.mark.parametrize("kind", ["switch", "moves"])
@pytest.mark.parametrize("late", [False, True], ids=["from noise", "from an image"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_followed_to_the_bit(
    name: str, late: bool, kind: str, pipe: Any, bases: Path
) -> None:
    import diffusers

    adapters = [random_adapter(pipe, seed=seed) for seed in (1, 2)]
    inputs: dict[str, Any] = {"prompt": PLAN.prompt}
    other = fresh(bases)
    by_hand = ByHand(other, adapters, kind)
    weights = ["1", "1"] if kind == "switch" else ["0.2..0.9", "1"]
    mix(pipe, adapters, weights, "switch" if kind == "switch" else "sum")
    pipes = [pipe, other]
    for one in pipes:
        made = getattr(diffusers, name).from_config(one.scheduler.config, **SCHEDULERS[name])
        one.scheduler = made
    if late:
        inputs |= {"image": torch.zeros(1, 3, 32, 32), "strength": 0.6}
        pipes = [diffusers.StableDiffusionImg2ImgPipeline.from_pipe(one) for one in pipes]
    found = latents(pipes[0], **inputs)
    by_hand.set(0, 2)
    wanted = latents(pipes[1], by_hand, **inputs)
    assert torch.equal(found, wanted)
    assert torch.equal(latents(pipes[0], **inputs), found)


def test_an_exception_leaves_the_next_image_from_an_image_as_it_was(
    pipe: Any, adapters: list[Adapter]
) -> None:
    """Its first timestep would be the next one of the image that was stopped."""
    import diffusers

    mix(pipe, adapters, ["0.2..0.9", "1"], "switch")
    late = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    inputs = {"prompt": PLAN.prompt, "image": torch.zeros(1, 3, 32, 32), "strength": 0.5}
    first = latents(late, **inputs)

    def fail(_pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            raise RuntimeError("stop")
        return tensors

    with pytest.raises(RuntimeError, match="stop"):
        latents(pipe, fail)
    assert torch.equal(latents(late, **inputs), first)


def test_a_pipeline_that_calls_the_denoiser_twice_a_step_counts_it_once(
    pipe: Any, adapters: list[Adapter]
) -> None:
    """Once for each half of the guidance, as some pipelines do."""
    mix(pipe, adapters, ["1", "1"], "switch")
    tokens, noisy = torch.randn(2, 32, 32), torch.randn(1, 4, 16, 16)
    pipe.scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            together = pipe.unet(torch.cat([noisy, noisy]), t, tokens).sample
            halves = [pipe.unet(noisy, t, one[None]).sample for one in tokens]
            copied = pipe.unet(torch.cat([noisy, noisy]), t.clone().expand(2), tokens).sample
            assert torch.allclose(together, torch.cat(halves), atol=1e-4)
            assert torch.equal(together, copied)
        again = pipe.unet(torch.cat([noisy, noisy]), pipe.scheduler.timesteps[0], tokens).sample
        assert not torch.equal(again, together)  # the other adapter: a loop that starts anew


def test_a_timestep_of_another_scheduler_is_refused(pipe: Any, adapters: list[Adapter]) -> None:
    mix(pipe, adapters, ["1", "1"], "switch")
    pipe.scheduler.set_timesteps(STEPS)
    with pytest.raises(ConfigError, match=r"timestep 13, which pipe\.scheduler does not have"):
        pipe.unet(torch.randn(1, 4, 16, 16), 13, torch.randn(1, 32, 32))


def test_steps_are_not_compiled_one_by_one(pipe: Any) -> None:
    from diffusers import UNet2DConditionModel

    pipe.unet = UNet2DConditionModel(  # what is compiled takes long by its layers
        sample_size=16,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()
    adapters = [random_adapter(pipe, TARGETS, seed=seed) for seed in (1, 2)]
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    manager = LoraManager(pipe, max_rank=8)
    schedule = AdapterSchedule(manager, pipe.unet)
    fitted = [manager.fit(one, "it", "the base") for one in adapters]

    def generate(weights: str, mode: CompositionMode) -> torch.Tensor:
        pair = [Weight.parse(weights), Weight.of(1.0)]
        schedule.activate(fitted, pair, mode)
        return latents(pipe)

    kinds: list[tuple[str, CompositionMode]]
    kinds = [("1", "sum"), ("1..0.2", "sum"), ("1", "switch"), ("1", "composite")]
    eager = [generate(*kind) for kind in kinds]
    pipe.unet.compile(backend=backend)
    for kind, wanted in zip(kinds, eager, strict=True):
        assert torch.allclose(generate(*kind), wanted, atol=1e-4), kind
    compilations = len(graphs)
    for kind in kinds:
        generate(*kind)
    assert len(graphs) == compilations <= len(kinds)
    torch._dynamo.reset()
    pipe.unet.compile(backend=backend, fullgraph=True)
    assert torch.allclose(generate("1", "sum"), eager[0], atol=1e-4)
    torch._dynamo.reset()


def test_a_denoiser_that_is_follows_its_steps_is_of_the_same_class(
    pipe: Any, adapters: list[Adapter]
) -> None:
    kind = type(pipe.unet)
    mix(pipe, adapters, ["1", "1"], "switch")
    assert type(pipe.unet) is kind  # as diffusers' from_pipe demands
    other = copy.deepcopy(pipe.unet)
    pipe.scheduler.set_timesteps(STEPS)
    for model in (other, pickle.loads(pickle.dumps(other))):
        model(torch.randn(1, 4, 16, 16), 13, torch.randn(1, 32, 32))  # follows nothing


@pytest.mark.parametrize("mode", ["switch", "composite"])
def test_an_adapter_of_weight_0_takes_no_turn(
    pipe: Any, adapters: list[Adapter], mode: CompositionMode
) -> None:
    calls = []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    mix(pipe, adapters[:1], ["0.9"])
    alone, count = latents(pipe), len(calls)
    adapter_schedule = mix(pipe, adapters, ["0.9", "0"], mode)
    assert torch.equal(latents(pipe), alone)
    assert len(calls) == 2 * count
    adapter_schedule.set_weights([Weight.of(0.9), Weight.of(0.5)])  # and takes turns again
    both = latents(pipe)
    adapter_schedule.activate(adapter_schedule.adapters, [Weight.of(0.9), Weight.of(0.5)], mode)
    assert torch.equal(latents(pipe), both)
    assert not torch.equal(alone, both)
