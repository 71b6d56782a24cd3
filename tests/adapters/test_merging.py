"""One adapter of several: `cat` is the sum, the others say how far they are from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.files import load_adapter, save_tensors
from hublora.adapters.layouts import to_diffusers
from hublora.adapters.merging import METHODS, merge
from hublora.errors import AdapterError, ConfigError

OUT, IN = 24, 20


def update(seed: int, rank: int = 3, alpha: float = 2.0, *, kernel: int = 0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    ones, sides = ((1, 1), (kernel, kernel)) if kernel else ((), ())
    down = torch.randn(rank, IN, *sides, generator=generator)
    return LowRank(down, torch.randn(OUT, rank, *ones, generator=generator), alpha)


def delta(layer: LowRank) -> torch.Tensor:
    return layer.scale * layer.up.flatten(1).double() @ layer.down.flatten(1).double()


A = Adapter({"unet": {"a.to_q": update(1), "a.conv": update(2, kernel=3), "only": update(3)}})
B = Adapter({"unet": {"a.to_q": update(4, 5, 7.0), "a.conv": update(5, 2, kernel=3)}})
PARTS = [(A, 0.7), (B, -0.5)]


def wanted() -> dict[str, torch.Tensor]:
    """The weighted sum, dense."""
    found: dict[str, Any] = {}
    for adapter, weight in PARTS:
        for name, layer in adapter.layers["unet"].items():
            found[name] = found.get(name, 0) + weight * delta(layer)
    return found


def relative_error(adapter: Adapter) -> float:
    exact = wanted()
    layers = adapter.layers["unet"]
    assert set(layers) == set(exact)
    off = sum(float((delta(layers[name]) - exact[name]).square().sum()) for name in exact)
    return (off / sum(float(one.square().sum()) for one in exact.values())) ** 0.5


@pytest.mark.parametrize("method", METHODS)
def test_the_reported_error_is_the_error(method: str, tmp_path: Path) -> None:
    merged = merge(PARTS, method, density=0.7)
    assert merged.error == pytest.approx(relative_error(merged.adapter), abs=1e-6)
    tensors, metadata = to_diffusers(merged.adapter)
    save_tensors(tensors, tmp_path / "a.safetensors", metadata)
    read = load_adapter(tmp_path / "a.safetensors")
    assert relative_error(read) == pytest.approx(merged.error, abs=1e-6)


def test_cat_is_exact_with_weights_and_alphas() -> None:
    merged = merge(PARTS, "cat")
    assert merged.error < 1e-6
    assert {n: layer.rank for n, layer in merged.adapter.layers["unet"].items()} == {
        "a.to_q": 8,
        "a.conv": 5,
        "only": 3,
    }


def test_svd_is_the_best_of_its_rank_and_exact_when_the_rank_is_enough() -> None:
    merged = merge(PARTS, "svd", rank=4)
    exact = wanted()
    lost = sum(float(torch.linalg.svdvals(one)[4:].square().sum()) for one in exact.values())
    all_of_it = sum(float(one.square().sum()) for one in exact.values())
    assert merged.error == pytest.approx((lost / all_of_it) ** 0.5, rel=1e-4)
    assert merge(PARTS, "svd", rank=8).error < 1e-6


def test_retaining_all_values_gives_the_sum() -> None:
    for method in ("dare_linear", "magnitude_prune"):
        assert merge(PARTS, method, density=1.0, rank=8).error < 1e-5


def test_dare_drops_the_same_for_the_same_seed() -> None:
    one, same, other = (merge(PARTS, "dare_linear", seed=seed) for seed in (1, 1, 2))
    assert one.error == same.error != other.error


def test_half_precision_is_kept_where_nothing_is_rounded() -> None:
    half = LowRank(update(1).down.half(), update(1).up.half(), 3.0)
    layers = {"unet": {"a.to_q": half}}
    exact = merge([(Adapter(layers), 1.0), (Adapter(layers), 0.5)], "cat")
    assert exact.adapter.layers["unet"]["a.to_q"].up.dtype == torch.float16
    rounded = merge([(Adapter(layers), 0.7)], "cat")
    assert rounded.adapter.layers["unet"]["a.to_q"].up.dtype == torch.float32
    assert max(exact.error, rounded.error) < 1e-6


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'linear.*method="cat"'):
        merge(PARTS, "linear")
    with pytest.raises(ConfigError, match=r"Unknown merge method 'glue'\. Choose from cat, svd"):
        merge(PARTS, "glue")
    with pytest.raises(ConfigError, match="takes no rank, got"):
        merge(PARTS, "cat", rank=2)
    wide = Adapter({"unet": {"a.to_q": LowRank(torch.ones(1, 9), torch.ones(OUT, 1), 1.0)}})
    with pytest.raises(AdapterError, match=r"different shapes for the layer unet\.a\.to_q"):
        merge([(A, 1.0), (wide, 1.0)])
    layer = update(1)
    dora = Adapter({"unet": {"a.to_q": LowRank(layer.down, layer.up, 1.0, torch.ones(OUT))}})
    with pytest.raises(AdapterError, match="DoRA and cannot be merged"):
        merge([(dora, 1.0)])
    with pytest.raises(AdapterError, match="every weight is 0"):
        merge([(A, 0.0)])


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_a_negative_weight_is_the_negated_adapter(method: str) -> None:
    """Signs are elected: of −w·ΔW they are those of the update that is added."""
    one, other = A, B
    negated = Adapter(
        {
            component: {name: replace(layer, up=-layer.up) for name, layer in modules.items()}
            for component, modules in other.layers.items()
        }
    )
    found = merge([(one, 0.7), (other, -0.5)], method, density=0.5, seed=3)
    expected = merge([(one, 0.7), (negated, 0.5)], method, density=0.5, seed=3)
    for module, layer in expected.adapter.layers["unet"].items():
        ours = found.adapter.layers["unet"][module]
        assert torch.allclose(delta(ours), delta(layer), atol=1e-4), module
