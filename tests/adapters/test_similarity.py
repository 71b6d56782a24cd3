"""Overlap is the cosine of the dense updates, computed without them, with a suggestion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.layouts import to_kohya
from hublora.adapters.similarity import overlap
from hublora.errors import ConfigError
from hublora.workflows.inspect import measure_overlap
from tests.entry import hublora_cli
from tests.lora import random_adapter, save_adapter

__all__ = ["hublora_cli"]

TARGETS = {"unet": ("to_q", "conv1", "proj_in"), "text_encoder": ("q_proj",)}


def scaled(adapter: Adapter, factor: float) -> Adapter:
    return Adapter(
        {
            component: {
                name: LowRank(layer.down, layer.up, layer.alpha * factor)
                for name, layer in modules.items()
            }
            for component, modules in adapter.layers.items()
        }
    )


def dense(adapter: Adapter, prefix: str = "") -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": layer.scale * layer.up.flatten(1) @ layer.down.flatten(1)
        for component, modules in adapter.layers.items()
        for name, layer in modules.items()
        if f"{component}.{name}".startswith(prefix)
    }


def cosine(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    inner = sum(float((one[name] * other[name]).sum()) for name in one.keys() & other.keys())
    lengths = [sum(float(x.square().sum()) for x in side.values()) for side in (one, other)]
    return inner / (lengths[0] * lengths[1]) ** 0.5


def test_the_cosines_are_those_of_the_dense_updates(pipe: Any) -> None:
    one = random_adapter(pipe, TARGETS, rank=3)
    other = random_adapter(pipe, {"unet": ("to_q", "conv1")}, rank=5, seed=1)
    shared = dict(other.layers["unet"])
    name, layer = next(iter(one.layers["unet"].items()))
    shared[name] = layer  # one layer in common, so that the cosine is not 0
    other = Adapter({"unet": shared})
    found = overlap([one, other])
    (pair,) = found.pairs
    assert pair.cosine == pytest.approx(cosine(dense(one), dense(other)), abs=1e-6)
    assert abs(pair.cosine) > 1e-3
    assert set(pair.blocks) == {
        "unet.down_blocks.0", "unet.down_blocks.1", "unet.mid_block", "unet.up_blocks.0",
        "unet.up_blocks.1",
    }  # fmt: skip
    for block, value in pair.blocks.items():
        wanted = cosine(dense(one, block + "."), dense(other, block + "."))
        assert value == pytest.approx(wanted, abs=1e-6)
    for norm, adapter in zip(found.norms, (one, other), strict=True):
        length = sum(float(x.square().sum()) for x in dense(adapter).values()) ** 0.5
        assert norm == pytest.approx(length, rel=1e-5)


def test_an_adapter_and_itself_are_to_be_switched(pipe: Any) -> None:
    adapter = random_adapter(pipe, TARGETS)
    for factor, words in ((2.0, "point in the same direction"), (-2.0, "cancel each other")):
        found = overlap([adapter, scaled(adapter, factor)])
        assert found.pairs[0].cosine == pytest.approx(1.0 if factor > 0 else -1.0)
        assert found.suggestion.mode == "switch"
        assert words in found.suggestion.reason


def test_independent_adapters_are_summed_as_they_are(pipe: Any) -> None:
    one, other = random_adapter(pipe, TARGETS), random_adapter(pipe, TARGETS, seed=1)
    found = overlap([one, other])
    assert abs(found.pairs[0].cosine) < 0.1
    assert (found.suggestion.mode, found.suggestion.weights) == ("sum", (1.0, 1.0))


def test_the_stronger_of_two_is_brought_to_the_other(pipe: Any) -> None:
    one = random_adapter(pipe, TARGETS)
    other = scaled(random_adapter(pipe, TARGETS, seed=1), 8.0)
    found = overlap([one, other])
    first, second = found.suggestion.weights
    assert first == 1.0
    assert second * found.norms[1] == pytest.approx(found.norms[0], rel=0.05)
    assert "much stronger" in found.suggestion.reason


def test_the_suggested_sum_is_no_longer_than_the_longest_part(pipe: Any) -> None:
    one, other = random_adapter(pipe, TARGETS), random_adapter(pipe, TARGETS, seed=1)
    mixed: dict[str, dict[str, LowRank]] = {}
    for component, modules in one.layers.items():
        for index, (name, layer) in enumerate(modules.items()):
            own = other.layers[component][name]
            mixed.setdefault(component, {})[name] = layer if index % 4 == 0 else own
    found = overlap([one, Adapter(mixed)])
    assert 0.1 < found.pairs[0].cosine < 0.5
    weights = found.suggestion.weights
    first, second = dense(one), dense(Adapter(mixed))
    total = sum(
        float((weights[0] * first[name] + weights[1] * second[name]).square().sum())
        for name in first
    )
    assert total**0.5 == pytest.approx(max(found.norms), rel=0.03)
    assert max(weights) < 1


def test_layers_of_another_shape_do_not_overlap(pipe: Any) -> None:
    layer = LowRank(torch.ones(2, 4), torch.ones(4, 2), 2)
    wide = LowRank(torch.ones(2, 8), torch.ones(8, 2), 2)
    (pair,) = overlap([Adapter({"unet": {"a": layer}}), Adapter({"unet": {"a": wide}})]).pairs
    assert (pair.cosine, pair.blocks) == (0.0, {})


def test_layouts_do_not_matter(pipe: Any, tmp_path: Path) -> None:
    from hublora.adapters.files import save_tensors

    adapter = random_adapter(pipe, {"unet": TARGETS["unet"]})
    save_adapter(adapter, tmp_path / "a")
    save_tensors(to_kohya(adapter, {"unet": "lora_unet"}), tmp_path / "b.safetensors")
    refs = [str(tmp_path / "a"), str(tmp_path / "b.safetensors")]
    for base in (None, "bases/epsilon"):
        (pair,) = measure_overlap(*refs, base=base).pairs
        assert pair.cosine == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"two or more"):
        measure_overlap(refs[0])


def test_the_command_shows_blocks_and_what_to_type(
    hublora_cli: Callable[..., Any], pipe: Any, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_adapter(random_adapter(pipe, TARGETS, seed=seed), tmp_path / name, "bases/epsilon")
    args = ["inspect", *(str(tmp_path / name) for name in "abc"), "--overlap"]
    done = hublora_cli(*args)
    assert done.status == 0, done.err
    assert "unet.mid_block" in done.out
    assert "+1.000" in done.out
    assert done.out.rstrip().endswith('"…" --compose switch')
    said = json.loads(hublora_cli(*args, "--json").out)["overlap"]
    assert [pair["cosine"] > 0.99 for pair in said["pairs"]] == [True, False, False]
    assert said["suggestion"]["mode"] == "switch"
    assert "overlap" not in json.loads(hublora_cli(*args[:-1], "--json").out)
