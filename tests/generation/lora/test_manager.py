"""Adapters as buffers: what a load costs, what a switch changes, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hublora.adapter_weights import Weight
from hublora.adapters.adapter import Adapter
from hublora.errors import AdapterError, ConfigError
from hublora.generation.lora.manager import FittedAdapter, LoraManager
from hublora.generation.lora.schedule import AdapterSchedule
from hublora.generation.offload import keep_adapters
from tests.generation.lora.test_dora import with_magnitudes
from tests.generation.test_compose import dense_sum, fresh, outputs
from tests.lora import ATTENTION, Weighted, apply_adapters, random_adapter, save_adapter

TARGETS = {"unet": (*ATTENTION, "conv1"), "text_encoder": ("fc1",)}


class Count(TorchDispatchMode):
    """Counts the operations on tensors."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def operations(act: Any) -> int:
    with Count() as count:
        act()
    return count.calls


def similar(pipe: Any, count: int, **targets: Any) -> list[Adapter]:
    return [random_adapter(pipe, targets or TARGETS, seed=seed, size=0.1) for seed in range(count)]


def put(adapter_schedule: AdapterSchedule, manager: LoraManager, adapter: Adapter) -> FittedAdapter:
    fitted = manager.fit(adapter, "it", "the base")
    adapter_schedule.activate([fitted], [Weight.of(1.0)])
    return fitted


def test_the_tenth_adapter_costs_what_the_second_did(pipe: Any) -> None:
    manager = LoraManager(pipe)
    adapter_schedule = AdapterSchedule(manager, pipe.unet)
    costs = [
        operations(lambda one=one: put(adapter_schedule, manager, one)) for one in similar(pipe, 10)
    ]
    assert costs[9] == costs[1] <= costs[0]


def test_a_switch_in_memory_copies_numbers_and_nothing_else(pipe: Any) -> None:
    manager = LoraManager(pipe)
    adapter_schedule = AdapterSchedule(manager, pipe.unet)
    one, other = (put(adapter_schedule, manager, adapter) for adapter in similar(pipe, 2))
    adapter_schedule.activate([one], [Weight.of(1.0)])
    packed = sum(len(fitted.packed) for fitted in (one,))
    assert operations(lambda: adapter_schedule.activate([other], [Weight.of(1.0)])) <= 4 * packed


@pytest.fixture
def compiled(pipe: Any) -> Iterator[tuple[Any, list[int]]]:
    """The pipeline with a block compiled, and a list as long as there were compilations."""
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    pipe.unet.mid_block.attentions[0].transformer_blocks[0].compile(backend=backend)
    yield pipe, graphs
    torch._dynamo.reset()


def test_nothing_is_compiled_again(compiled: tuple[Any, list[int]], bases: Path) -> None:
    pipe, graphs = compiled
    manager = LoraManager(pipe, max_rank=12)
    adapter_schedule = AdapterSchedule(manager, pipe.unet)
    adapters = [
        random_adapter(pipe, {"unet": ATTENTION}, rank=rank, seed=rank, size=0.1)
        for rank in (2, 3, 4)
    ]
    two, three, four = (manager.fit(one, "it", "the base") for one in adapters)
    adapter_schedule.activate([two], [Weight.of(1.0)])
    first = outputs(pipe)[1]
    compilations = len(graphs)
    assert compilations
    for parts, weights in (
        ([three], ["1"]),
        ([three], ["0.25"]),
        ([two, four], ["0.5", "-1"]),
        ([four, two, three], ["1", "0.1", "1,mid:0"]),
        ([], []),
    ):
        adapter_schedule.activate(parts, [Weight.parse(text) for text in weights])
        outputs(pipe)
    adapter_schedule.activate([two, three], [Weight.of(0.5), Weight.of(0.7)], "switch")
    outputs(pipe)
    adapter_schedule.activate([two, four], [Weight.of(0.5), Weight.of(0.7)])
    found = outputs(pipe)[1]
    assert len(graphs) == compilations
    parts = [Weighted(adapters[0], 0.5), Weighted(adapters[2], 0.7)]
    assert torch.allclose(found, outputs(dense_sum(fresh(bases), parts))[1], atol=1e-5)
    adapter_schedule.activate([two], [Weight.of(1.0)])
    assert torch.equal(outputs(pipe)[1], first)
    assert len(graphs) == compilations


def test_with_reserved_ranks_a_dora_adds_up_too(pipe: Any, bases: Path) -> None:
    manager = LoraManager(pipe, max_rank=8)
    adapter_schedule = AdapterSchedule(manager, pipe.unet)
    lora, dora = similar(pipe, 2)
    dora = with_magnitudes(dora, pipe)
    parts = [manager.fit(one, "it", "the base") for one in (lora, dora)]
    adapter_schedule.activate(parts, [Weight.of(0.5), Weight.of(0.7)])
    adapter_schedule.activate(parts[:1], [Weight.of(0.5)])
    wanted = outputs(dense_sum(fresh(bases), [Weighted(lora, 0.5)]))
    for found, dense in zip(outputs(pipe), wanted, strict=True):
        assert torch.allclose(found, dense, atol=1e-5)


def test_layers_of_which_nothing_acts_are_left_out(pipe: Any) -> None:
    manager = LoraManager(pipe)
    adapter_schedule = AdapterSchedule(manager, pipe.unet)
    put(adapter_schedule, manager, random_adapter(pipe, {"unet": ["conv1"]}))
    put(adapter_schedule, manager, random_adapter(pipe))
    calls: list[str] = []
    for name, layer in pipe.unet.named_modules():
        if hasattr(layer, "lora_A"):
            layer.lora_A[manager.name].register_forward_hook(
                lambda *_, name=name: calls.append(name)
            )
    outputs(pipe)
    assert calls
    assert not any("conv1" in name for name in calls)
    adapter_schedule.activate(adapter_schedule.adapters, [Weight.of(0.0)])
    calls.clear()
    outputs(pipe)
    assert not calls


def test_a_pipeline_may_change_its_type_between(pipe: Any) -> None:
    adapter_schedule = apply_adapters(pipe, [Weighted(one) for one in similar(pipe, 2)])
    pipe.to(torch.bfloat16)
    adapter_schedule.set_weights([Weight.of(0.0), Weight.of(1.0)])
    other = fresh_like(pipe)
    (second,) = [Weighted(similar(pipe, 2)[1])]
    apply_adapters(other, [second])
    pipe.to(torch.float32), other.to(torch.float32)
    assert torch.allclose(outputs(pipe)[1], outputs(other)[1], atol=1e-5)


def fresh_like(pipe: Any) -> Any:
    """Return the base as it is in the pipeline, without adapters."""
    import copy

    other = copy.deepcopy(pipe)
    other.unload_lora_weights()
    return other


def test_adapters_that_were_taken_off_are_missed(pipe: Any) -> None:
    adapter_schedule = apply_adapters(pipe, [Weighted(random_adapter(pipe))])
    pipe.unload_lora_weights()
    with pytest.raises(ConfigError, match="taken off"):
        adapter_schedule.set_weights([Weight.of(0.5)])


def test_they_are_one_adapter_to_diffusers(pipe: Any, bases: Path, tmp_path: Path) -> None:
    """Which can weaken it, put another beside it, fuse it and take it off."""
    adapters = similar(pipe, 3, unet=ATTENTION)
    plain = outputs(pipe)[1]
    adapter_schedule = apply_adapters(pipe, [Weighted(adapters[0], 0.5), Weighted(adapters[1])])
    pipe.load_lora_weights(save_adapter(adapters[2], tmp_path), adapter_name="theirs")
    pipe.set_adapters([adapter_schedule.name, "theirs"], [0.5, 2.0])
    parts = [Weighted(adapters[0], 0.25), Weighted(adapters[1], 0.5), Weighted(adapters[2], 2.0)]
    wanted = outputs(dense_sum(fresh(bases), parts))[1]
    assert torch.allclose(outputs(pipe)[1], wanted, atol=1e-4)
    pipe.fuse_lora(adapter_names=[adapter_schedule.name, "theirs"])
    assert torch.allclose(outputs(pipe)[1], wanted, atol=1e-4)
    with pytest.raises(ConfigError, match="fused"):  # to unfuse takes what was fused
        adapter_schedule.set_weights([Weight.of(1.0), Weight.of(1.0)])
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    assert torch.allclose(outputs(pipe)[1], plain, atol=1e-5)


def test_hotswapping_a_name_that_is_a_part_of_another_leaves_ours(
    pipe: Any, tmp_path: Path
) -> None:
    """PEFT's hotswap of `foo` zeroes `foobar`: it looks for names inside of names."""
    ours, theirs, other = similar(pipe, 3, unet=ATTENTION)
    adapter_schedule = apply_adapters(pipe, [Weighted(ours)])
    again = apply_adapters(pipe, [Weighted(ours)])
    for name in (adapter_schedule.name, again.name):
        assert not any(name in one for one in (adapter_schedule.name, again.name) if one != name)
    files = [save_adapter(one, tmp_path / str(i)) for i, one in enumerate((theirs, other))]
    pipe.load_lora_weights(files[0], adapter_name="foo")
    pipe.load_lora_weights(files[0], adapter_name="foobar")
    before = held(pipe, adapter_schedule.name)
    pipe.unet.load_lora_adapter(files[1], adapter_name="foo", hotswap=True, prefix="unet")
    assert all(map(torch.equal, held(pipe, adapter_schedule.name), before))
    adapter_schedule.set_weights([Weight.of(1.0)])
    pipe.set_adapters([adapter_schedule.name])
    found = outputs(pipe)[1]
    pipe.unload_lora_weights()
    apply_adapters(pipe, [Weighted(ours)])
    assert torch.equal(outputs(pipe)[1], found)


def held(pipe: Any, name: str) -> list[torch.Tensor]:
    layers = [one for one in pipe.unet.modules() if name in getattr(one, "lora_B", {})]
    return [one.lora_B[name].weight.clone() for one in layers]


def test_offloaded_layer_by_layer_the_weights_still_move(pipe: Any, bases: Path) -> None:
    from accelerate import cpu_offload

    adapter = random_adapter(pipe)
    adapter_schedule = apply_adapters(pipe, [Weighted(adapter)])
    cpu_offload(pipe.unet, "cpu")
    keep_adapters(pipe, "cpu")
    adapter_schedule.set_weights([Weight.of(0.5)])
    wanted = outputs(dense_sum(fresh(bases), [Weighted(adapter, 0.5)]))[1]
    assert torch.allclose(outputs(pipe)[1], wanted, atol=1e-5)


def test_numbers_too_large_for_the_type_are_refused(pipe: Any) -> None:
    adapter = random_adapter(pipe, size=1e6)
    pipe.to(torch.float16)
    with pytest.raises(AdapterError, match="too large for float16"):
        apply_adapters(pipe, [Weighted(adapter)])
    assert not pipe.get_list_adapters()


def test_where_a_pipeline_computes_is_not_asked_for_at_a_switch(pipe: Any) -> None:
    """diffusers walks every module of a pipeline to find it, which was two thirds of a switch."""
    manager = LoraManager(pipe)
    adapter_schedule = AdapterSchedule(manager, pipe.unet)
    one, other = (put(adapter_schedule, manager, adapter) for adapter in similar(pipe, 2))
    walked: list[str] = []

    class Watched(type(pipe)):  # type: ignore[misc]
        @property
        def _execution_device(self) -> Any:
            walked.append("device")
            return super()._execution_device

    pipe.__class__ = Watched
    for fitted in (one, other):
        adapter_schedule.activate([fitted], [Weight.of(1.0)])
    assert not walked
