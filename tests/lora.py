"""Builds adapters with random weights, for tests that need one without training it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hublora.adapter_weights import Weight
from hublora.adapters.adapter import Adapter, AdapterFacts, LowRank
from hublora.adapters.files import save_tensors
from hublora.adapters.layouts import to_diffusers
from hublora.generation.lora.manager import LoraManager
from hublora.generation.lora.schedule import AdapterSchedule

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
WEIGHTS = "pytorch_lora_weights.safetensors"


def random_adapter(
    pipe: Any,
    targets: Mapping[str, Sequence[str]] | None = None,
    *,
    rank: int = 3,
    alpha: float = 2.0,
    seed: int = 0,
    size: float = 0.3,
) -> Adapter:
    """Return an adapter for the layers of `pipe` whose names end in one of `targets`.

    Args:
        pipe: A pipeline.
        targets: Component -> endings of layer names; the U-Net's attention by default.
        rank: Of every layer.
        alpha: Of every layer.
        seed: Of the weights.
        size: Their standard deviation.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * size

    layers: dict[str, dict[str, LowRank]] = {}
    for component, endings in (targets or {"unet": ATTENTION}).items():
        for name, module in getattr(pipe, component).named_modules():
            if not name.endswith(tuple(endings)) or not hasattr(module, "weight"):
                continue
            out, *rest = module.weight.shape
            update = LowRank(normal(rank, *rest), normal(out, rank, *[1] * (len(rest) - 1)), alpha)
            layers.setdefault(component, {})[name] = update
    return Adapter(layers, AdapterFacts())


@dataclass(frozen=True)
class Weighted:
    """An adapter and its weight."""

    adapter: Adapter
    weight: float = 1.0


def apply_adapters(
    pipe: Any, adapters: Sequence[Weighted], base: str = "the base"
) -> AdapterSchedule:
    """Activate the adapters on a pipeline that hublora did not load, and no others.

    Args:
        pipe: A diffusers pipeline.
        adapters: In order; the same may come twice.
        base: Name of the pipeline in messages.
    """
    manager = LoraManager(pipe)
    fitted = []
    for one in adapters:
        facts = one.adapter.facts
        label = facts.source or facts.title or "the adapter"
        fitted.append(manager.fit(one.adapter, label, base))
    adapter_schedule = AdapterSchedule(manager, getattr(pipe, "unet", None))
    adapter_schedule.activate(fitted, [Weight.of(one.weight) for one in adapters])
    return adapter_schedule


def save_adapter(adapter: Adapter, folder: Path, base: str | None = None, **more: str) -> Path:
    """Write the adapter as hublora does, saying that it was made for `base`; return the file."""
    tensors, metadata = to_diffusers(adapter)
    if base is not None:
        metadata["hublora.base_model"] = base
    save_tensors(tensors, folder / WEIGHTS, metadata | more)
    return folder / WEIGHTS


def same_layers(one: Adapter, other: Adapter) -> bool:
    """Tell whether two adapters have the same layers with the same weights and scales."""
    if {c: set(m) for c, m in one.layers.items()} != {c: set(m) for c, m in other.layers.items()}:
        return False
    return all(
        torch.equal(layer.down, other.layers[component][name].down)
        and torch.equal(layer.up, other.layers[component][name].up)
        and layer.alpha == other.layers[component][name].alpha
        for component, modules in one.layers.items()
        for name, layer in modules.items()
    )
