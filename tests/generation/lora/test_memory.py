"""What adapters leave in memory, counted in objects: nothing, however many came and went."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import hublora
from hublora.adapter_weights import Weight
from hublora.generation.lora.manager import LoraManager
from hublora.generation.lora.schedule import AdapterSchedule
from tests.lora import random_adapter, save_adapter


def counted() -> Counter[str]:
    """Return how many tensors, threads, and objects of hublora's classes there are, by class."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    found = Counter(
        kind.__name__
        for kind in kinds
        if str(kind.__module__).startswith("hublora.") or issubclass(kind, torch.Tensor)
    )
    return found + Counter(threads=threading.active_count())


def grown(act: Callable[[int], object], rounds: int) -> Counter[str]:
    """Return what there is more after all rounds than after a third of them."""
    for number in range(rounds // 3):
        act(number)
    before = counted()
    for number in range(rounds // 3, rounds):
        act(number)
    return counted() - before


def test_weights_that_change_leave_nothing(pipe: Any) -> None:
    manager = LoraManager(pipe)
    schedule = AdapterSchedule(manager, pipe.unet)
    pair = [manager.fit(random_adapter(pipe, seed=seed), "it", "the base") for seed in (1, 2)]

    def reweigh(number: int) -> None:
        mode = ("sum", "switch", "composite")[number % 3]
        schedule.activate(pair, [Weight.of(number / 10), Weight.parse("0.2..0.9")], mode)
        pipe("a hill", num_inference_steps=2, output_type="latent")

    assert not grown(reweigh, 12)


def test_adapters_of_ever_other_layers_and_ranks_leave_nothing(pipe: Any) -> None:
    """Neither their numbers nor views of where they lay in the buffers."""
    manager = LoraManager(pipe, max_rank=8)
    schedule = AdapterSchedule(manager, pipe.unet)
    ends = ("attn1.to_q", "attn1.to_k", "attn2.to_q", "attn2.to_v")

    def bring(number: int) -> None:
        targets = {"unet": [end for bit, end in enumerate(ends) if (number % 15 + 1) >> bit & 1]}
        adapter = random_adapter(pipe, targets, rank=1 + number % 7)
        schedule.activate([manager.fit(adapter, "it", "the base")], [Weight.of(1.0)])

    assert grown(bring, 102)["Tensor"] < 200  # each of them has 16 views, on average


def test_adapters_that_come_from_disk_and_leave_leave_nothing(pipe: Any, tmp_path: Path) -> None:
    refs = [
        str(save_adapter(random_adapter(pipe, seed=seed, rank=seed), tmp_path / str(seed)))
        for seed in (1, 2, 3)
    ]
    loaded = hublora.load(refs[0], base="bases/epsilon", cache_bytes=0)
    assert not grown(lambda number: hublora.use(loaded, refs[number % 3]), 6)
    assert not grown(lambda number: hublora.use(loaded, *refs[number % 2 :], compose="switch"), 6)
