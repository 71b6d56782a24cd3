"""DoRA counts by its weight, exactly, whatever else is active: compared with dense weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapter_weights import Weight
from hublora.adapters.adapter import Adapter, LowRank
from tests.generation.test_compose import fresh, outputs
from tests.lora import Weighted, apply_adapters, random_adapter

TARGETS = {"unet": ("to_q", "to_out.0", "proj_in", "conv1", "conv_in"), "text_encoder": ("fc1",)}


def with_magnitudes(adapter: Adapter, pipe: Any) -> Adapter:
    """Return the adapter as a DoRA whose rows are up to half as long again as the base's."""
    generator = torch.Generator().manual_seed(3)
    layers: dict[str, dict[str, LowRank]] = {}
    for component, modules in adapter.layers.items():
        for name, layer in modules.items():
            weight = getattr(pipe, component).get_submodule(name).weight.detach().flatten(1)
            longer = 1 + torch.rand(len(weight), generator=generator) / 2
            own = LowRank(layer.down, layer.up, layer.alpha, weight.norm(dim=1) * longer)
            layers.setdefault(component, {})[name] = own
    return Adapter(layers)


def dense_sum(pipe: Any, parts: Sequence[Weighted]) -> Any:
    """Add `Σ w · (W'ₖ − W)` to the weights themselves, each W'ₖ as DoRA or LoRA define it."""
    changes: dict[tuple[str, str], torch.Tensor] = {}
    for part in parts:
        for component, modules in part.adapter.layers.items():
            for name, layer in modules.items():
                weight = getattr(pipe, component).get_submodule(name).weight.detach().flatten(1)
                adapted = weight + layer.scale * layer.up.flatten(1) @ layer.down.flatten(1)
                if layer.magnitude is not None:
                    adapted *= (layer.magnitude / adapted.norm(dim=1))[:, None]
                change = part.weight * (adapted - weight)
                changes[component, name] = changes.get((component, name), 0) + change
    for (component, name), change in changes.items():
        weight = getattr(pipe, component).get_submodule(name).weight
        weight.data += change.reshape(weight.shape)
    return pipe


@pytest.mark.parametrize(
    "kinds",
    [
        [("dora", 1.0)],
        [("dora", 0.4)],
        [("dora", 0.0), ("lora", 0.5)],
        [("lora", 0.7), ("dora", 0.5)],
        [("dora", 0.5), ("lora", 0.7), ("dora", -0.3)],
    ],
    ids=lambda kinds: " and ".join(f"{kind}:{weight}" for kind, weight in kinds),
)
def test_what_is_active_adds_up(pipe: Any, bases: Path, kinds: list[tuple[str, float]]) -> None:
    parts = []
    for seed, (kind, weight) in enumerate(kinds):
        adapter = random_adapter(pipe, TARGETS, rank=2 + seed, seed=seed, size=0.1)
        parts.append(
            Weighted(with_magnitudes(adapter, pipe) if kind == "dora" else adapter, weight)
        )
    plain = outputs(pipe)
    wanted = outputs(dense_sum(fresh(bases), parts))
    apply_adapters(pipe, parts)
    for found, dense, before in zip(outputs(pipe), wanted, plain, strict=True):
        assert (found - dense).abs().max() < 1e-4 * max(1.0, float(dense.abs().max()))
        assert (found - before).abs().max() > 1e-3


def test_a_weight_of_nothing_is_the_base_and_can_be_moved(pipe: Any, bases: Path) -> None:
    part = Weighted(with_magnitudes(random_adapter(pipe, TARGETS, size=0.1), pipe), 0.0)
    plain = outputs(pipe)
    adapter_schedule = apply_adapters(pipe, [part])
    for found, before in zip(outputs(pipe), plain, strict=True):
        assert torch.allclose(found, before, atol=1e-6)
    adapter_schedule.set_weights([Weight.of(0.6)])
    wanted = outputs(dense_sum(fresh(bases), [Weighted(part.adapter, 0.6)]))
    for found, dense in zip(outputs(pipe), wanted, strict=True):
        assert torch.allclose(found, dense, atol=1e-4)


def test_half_precision_takes_a_dora(pipe: Any) -> None:
    adapter = with_magnitudes(random_adapter(pipe, TARGETS, size=0.1), pipe)
    pipe.to(torch.bfloat16)
    apply_adapters(pipe, [Weighted(adapter)])
    layer = next(iter(adapter.layers["unet"]))
    assert pipe.unet.get_submodule(layer).weight.dtype == torch.bfloat16
    (magnitude,) = pipe.unet.get_submodule(layer).lora_magnitude_vector.values()
    assert magnitude.scale.dtype == torch.bfloat16


def test_a_dora_can_be_fused_and_taken_away(pipe: Any, bases: Path) -> None:
    adapter = with_magnitudes(random_adapter(pipe, {"unet": TARGETS["unet"]}, size=0.1), pipe)
    plain = outputs(pipe)
    apply_adapters(pipe, [Weighted(adapter)])
    active = outputs(pipe)
    pipe.fuse_lora(components=["unet"])
    assert torch.allclose(outputs(pipe)[1], active[1], atol=1e-4)
    pipe.unfuse_lora(components=["unet"])
    pipe.unload_lora_weights()
    assert torch.allclose(outputs(pipe)[1], plain[1], atol=1e-4)
