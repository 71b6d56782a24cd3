"""Whatever stops a call or a change, the next call is as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hublora.adapter_weights import CompositionMode, Weight
from hublora.adapters.adapter import Adapter
from hublora.generation.lora.manager import LoraManager
from hublora.generation.lora.schedule import AdapterSchedule
from tests.generation.lora.test_dora import with_magnitudes
from tests.lora import random_adapter

TARGETS = {"unet": ("attn2.to_q",), "text_encoder": ("layers.0.self_attn.q_proj",)}
KINDS: dict[str, tuple[list[str], CompositionMode]] = {
    "sum": (["1", "0.5"], "sum"),
    "switch": (["1", "0.5"], "switch"),
    "composite": (["1", "0.5"], "composite"),
    "moves": (["0.2..0.9", "1,mid:0"], "sum"),
    "moves and switches": (["0.2..0.9", "1..0"], "switch"),
}


class StopAt(TorchDispatchMode):
    """Raises KeyboardInterrupt after an operation on tensors.

    Args:
        number: Of those that change adapters' buffers, from 0; -1 for never.
        everything: Whether other operations count too.

    Attributes:
        seen: Operations that counted.
    """

    def __init__(self, number: int, everything: bool = False) -> None:
        super().__init__()
        self.number, self.everything, self.seen = number, everything, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.everything or "_foreach_" in str(func):
            self.seen += 1
            if self.seen - 1 == self.number:
                raise KeyboardInterrupt
        return result


def call(pipe: Any, callback: Callable[..., Any] | None = None) -> torch.Tensor:
    return pipe(
        "a red star",
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=callback,
    ).images


def stopped_by(act: Callable[[], object], stop: StopAt) -> bool:
    """Act, and tell whether it was stopped."""
    try:
        with stop:
            act()
    except KeyboardInterrupt:
        return True
    return False


def adapters_of(pipe: Any) -> list[Adapter]:
    one, other = (random_adapter(pipe, TARGETS, seed=seed, rank=seed) for seed in (2, 3))
    return [one, with_magnitudes(other, pipe)]


@pytest.fixture(params=KINDS)
def active(pipe: Any, request: pytest.FixtureRequest) -> AdapterSchedule:
    """Two adapters, one of them a DoRA, active in one of the ways."""
    manager = LoraManager(pipe)
    schedule = AdapterSchedule(manager, pipe.unet)
    fitted = [manager.fit(one, "it", "the base") for one in adapters_of(pipe)]
    weights, mode = KINDS[request.param]
    schedule.activate(fitted, [Weight.parse(text) for text in weights], mode)
    return schedule


def test_a_call_that_is_stopped_at_any_change_of_buffers(
    active: AdapterSchedule, pipe: Any
) -> None:
    first = call(pipe)
    with StopAt(-1) as whole:
        call(pipe)
    for number in range(0, whole.seen, max(whole.seen // 9, 1)):
        with pytest.raises(KeyboardInterrupt), StopAt(number):
            call(pipe)
        assert torch.equal(call(pipe), first), number


def test_a_callback_that_raises_or_changes_the_adapters(active: AdapterSchedule, pipe: Any) -> None:
    first, fitted, weights, mode = call(pipe), active.adapters, active._weights, active._asked

    def fail(_pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            raise RuntimeError("stop")
        return tensors

    def change(_pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            active.activate(fitted[1:], [Weight.parse("0.3..1")])
        return tensors

    with pytest.raises(RuntimeError, match="stop"):
        call(pipe, fail)
    assert torch.equal(call(pipe), first)
    call(pipe, change)
    changed = call(pipe)
    active.activate(fitted[1:], [Weight.parse("0.3..1")])
    assert torch.equal(call(pipe), changed)
    active.activate(fitted, weights, mode)
    assert torch.equal(call(pipe), first)


def test_a_denoiser_or_text_encoder_that_fails(active: AdapterSchedule, pipe: Any) -> None:
    first = call(pipe)
    for model, calls in ((pipe.unet, 1), (pipe.unet, 2), (pipe.text_encoder, 0)):
        left = [calls]

        def fail(*_: Any, left: list[int] = left) -> None:
            if not left[0]:
                raise RuntimeError("out of memory")
            left[0] -= 1

        handle = model.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            call(pipe)
        handle.remove()
        assert torch.equal(call(pipe), first)


def test_a_change_that_is_stopped_at_any_operation_did_not_happen(
    active: AdapterSchedule, pipe: Any
) -> None:
    """Neither if other adapters need other layers and ranks, nor if it is the weights only."""
    first, fitted, weights, mode = call(pipe), active.adapters, active._weights, active._asked
    other = random_adapter(pipe, {"unet": ["attn2.to_q", "attn1.to_k"]}, rank=5)
    added = active._manager.fit(other, "it", "the base")
    for change in (
        lambda: active.activate([added, fitted[0]], [Weight.of(1.0), Weight.of(0.3)]),
        lambda: active.activate(fitted, [Weight.of(0.1), Weight.of(0.3)], "sum"),
    ):
        stopped, stop = 0, StopAt(0, everything=True)
        while stopped_by(change, stop):
            assert active.adapters == fitted
            assert torch.equal(call(pipe), first), stop.number
            stopped, stop = stopped + 1, StopAt(stop.number + 5, everything=True)
        assert stopped
        active.activate(fitted, weights, mode)
