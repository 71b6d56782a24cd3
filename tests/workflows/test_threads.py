"""Loads, changes of adapters, trainings and calls in several threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch

import hublora
from hublora.training.config.sections import AdapterSettings
from hublora.training.lora_module import adapt

WORKERS, ROUNDS = 4, 3


@pytest.fixture
def refs(publish: Callable[..., str]) -> list[str]:
    return [publish(f"threads-{name}", seed) for seed, name in enumerate("ab", 1)]


def generate(pipe: Any) -> bytes:
    generator = torch.Generator().manual_seed(0)
    return pipe("a hill", num_inference_steps=2, generator=generator).images[0].tobytes()


def meanwhile(*jobs: Callable[[], Any]) -> list[list[Any]]:
    """Run each job in a thread of its own, `ROUNDS` times; return what they returned."""
    together = Barrier(len(jobs), timeout=60)

    def repeat(job: Callable[[], Any]) -> list[Any]:
        together.wait()
        return [job() for _ in range(ROUNDS)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [done.result() for done in [pool.submit(repeat, job) for job in jobs]]


def test_loads_in_several_threads_and_every_later_one_work(refs: list[str]) -> None:
    before = torch.nn.Module.register_parameter, torch.nn.init.normal_, torch.get_default_dtype()
    expected = [generate(hublora.load(ref)) for ref in refs]

    def load(number: int) -> bytes:
        return generate(hublora.load(refs[number % 2]))

    found = meanwhile(*[lambda n=n: load(n) for n in range(WORKERS)])
    assert found == [[expected[n % 2]] * ROUNDS for n in range(WORKERS)]
    after = torch.nn.Module.register_parameter, torch.nn.init.normal_, torch.get_default_dtype()
    assert after == before
    assert generate(hublora.load(refs[0])) == expected[0]


def test_loads_leave_no_thread_behind(refs: list[str]) -> None:
    hublora.load(refs[0])
    before = threading.enumerate()
    for ref in refs:
        hublora.load(ref)
    assert set(threading.enumerate()) <= set(before)


def test_calls_and_changes_of_adapters_are_as_if_nothing_was_loaded(refs: list[str]) -> None:
    pipes = [hublora.load(refs[0]), hublora.load(refs[0])]
    expected = []
    for ref in refs:
        hublora.use(pipes[1], ref)
        expected.append(generate(pipes[1]))

    def change() -> list[bytes]:
        fresh = hublora.load(base="bases/epsilon")
        images = []
        for ref in refs:
            with hublora.using(fresh, ref):
                images.append(generate(fresh))
        return images

    called, changed, _, _ = meanwhile(
        lambda: [generate(pipes[0]) for _ in range(3)],
        change,
        lambda: hublora.load(base="bases/epsilon", dtype="bfloat16"),
        lambda: hublora.load(base="bases/velocity", dtype="bfloat16"),
    )
    assert called == [[expected[0]] * 3] * ROUNDS
    assert changed == [expected] * ROUNDS


def test_an_untrained_adapter_has_its_numbers_whatever_loads_meanwhile(bases: Any) -> None:
    from diffusers import UNet2DConditionModel

    models = [
        UNet2DConditionModel.from_pretrained(bases / "epsilon", subfolder="unet")
        for _ in range(ROUNDS)
    ]
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"

    def train() -> Any:
        return adapt(AdapterSettings(alpha=4.0), models.pop(), {layer: 4}).model

    adapted, _, _ = meanwhile(
        train,
        lambda: hublora.load(base="bases/epsilon", dtype="bfloat16"),
        lambda: hublora.load(base="bases/velocity", dtype="bfloat16"),
    )
    for model in adapted:
        own = [value for name, value in model.named_parameters() if "lora_" in name]
        assert own
        assert all(value.dtype == torch.float32 and not value.is_meta for value in own)
