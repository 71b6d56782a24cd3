"""Adapters on a base: the exact weighted sum, every tensor accounted for, or a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapters.adapter import Adapter, AdapterFacts, LowRank
from hublora.adapters.files import load_adapter, save_tensors
from hublora.adapters.layouts import to_kohya
from hublora.errors import AdapterError
from tests.lora import ATTENTION, Weighted, apply_adapters, random_adapter, save_adapter

EVERYTHING = ("to_k", "to_q", "to_v", "to_out.0", "proj_in", "ff.net.2", "conv1", "conv_in")
TEXT = ("q_proj", "fc1")


def dense_sum(pipe: Any, parts: Sequence[Weighted]) -> Any:
    """Add `Σ w · scale · up @ down` to the weights themselves, as the definition says."""
    for part in parts:
        for component, modules in part.adapter.layers.items():
            for name, layer in modules.items():
                weight = getattr(pipe, component).get_submodule(name).weight
                product = layer.up.flatten(1) @ layer.down.flatten(1)
                with torch.no_grad():
                    weight += (part.weight * layer.scale * product).reshape(weight.shape)
    return pipe


def outputs(pipe: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what text encoder and U-Net make of a fixed input."""
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    tokens = pipe.tokenizer(
        ["a red star"] * 2, padding="max_length", max_length=32, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        text = pipe.text_encoder(tokens)[0]
        return text, pipe.unet(latents, torch.tensor([500, 20]), text).sample


def fresh(bases: Path, name: str = "epsilon") -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(bases / name, safety_checker=None)


COMPOSITIONS: dict[str, list[tuple[Mapping[str, Sequence[str]], float]]] = {
    "one": [({"unet": ATTENTION}, 1.0)],
    "two on the same layers": [({"unet": ATTENTION}, 0.7), ({"unet": ATTENTION}, 0.5)],
    "a negative weight": [({"unet": ATTENTION}, 1.0), ({"unet": ATTENTION}, -0.6)],
    "a weight of nothing": [({"unet": ATTENTION}, 0.0), ({"unet": ATTENTION}, 0.4)],
    "convolutions and feed-forward": [({"unet": EVERYTHING}, 0.8), ({"unet": ATTENTION}, 0.3)],
    "text encoder and U-Net": [({"unet": ATTENTION, "text_encoder": TEXT}, 0.9)],
    "text encoder alone beside U-Net alone": [
        ({"text_encoder": TEXT}, 1.3),
        ({"unet": ATTENTION}, 0.5),
        ({"unet": ATTENTION, "text_encoder": TEXT}, -0.4),
    ],
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_composition_is_the_exact_weighted_sum(pipe: Any, bases: Path, name: str) -> None:
    parts = [
        Weighted(random_adapter(pipe, targets, rank=2 + k, alpha=1.5 + k, seed=k, size=0.1), weight)
        for k, (targets, weight) in enumerate(COMPOSITIONS[name])
    ]
    plain = outputs(pipe)
    wanted = outputs(dense_sum(fresh(bases), parts))
    apply_adapters(pipe, parts)
    found = outputs(pipe)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 1e-5
    changed = {c for part in parts if part.weight for c in part.adapter.layers}
    assert (found[0] - plain[0]).abs().max() > 1e-3 or "text_encoder" not in changed
    assert (found[1] - plain[1]).abs().max() > 1e-3


def test_the_same_adapter_twice_counts_twice(pipe: Any, bases: Path) -> None:
    adapter = random_adapter(pipe)
    apply_adapters(pipe, [Weighted(adapter, 0.25), Weighted(adapter, 0.5)])
    wanted = outputs(dense_sum(fresh(bases), [Weighted(adapter, 0.75)]))
    assert (outputs(pipe)[1] - wanted[1]).abs().max() < 1e-5


def test_adapters_can_be_put_on_a_pipeline_that_has_some(pipe: Any, bases: Path) -> None:
    first, second = random_adapter(pipe), random_adapter(pipe, seed=1)
    apply_adapters(pipe, [Weighted(first)])
    apply_adapters(pipe, [Weighted(second)])
    wanted = outputs(dense_sum(fresh(bases), [Weighted(second)]))
    assert (outputs(pipe)[1] - wanted[1]).abs().max() < 1e-5


def test_a_kohya_file_acts_like_the_diffusers_file(pipe: Any, bases: Path, tmp_path: Path) -> None:
    adapter = random_adapter(pipe, {"unet": EVERYTHING})
    diffusers_file = save_adapter(adapter, tmp_path)
    kohya_file = tmp_path / "kohya.safetensors"
    save_tensors(to_kohya(adapter, {"unet": "lora_unet"}), kohya_file)
    other = fresh(bases)
    apply_adapters(pipe, [Weighted(load_adapter(diffusers_file))])
    apply_adapters(other, [Weighted(load_adapter(kohya_file))])
    assert torch.equal(outputs(pipe)[1], outputs(other)[1])


def test_a_pointwise_convolution_may_be_written_as_a_linear_layer(pipe: Any, bases: Path) -> None:
    adapter = random_adapter(pipe, {"unet": ["proj_in"]})
    flat = {
        name: LowRank(layer.down.flatten(1), layer.up.flatten(1), layer.alpha)
        for name, layer in adapter.layers["unet"].items()
    }
    other = fresh(bases)
    apply_adapters(pipe, [Weighted(adapter)])
    apply_adapters(other, [Weighted(Adapter({"unet": flat}))])
    assert torch.equal(outputs(pipe)[1], outputs(other)[1])


def test_an_adapter_for_another_width_is_refused_naming_both(pipe: Any, bases: Path) -> None:
    adapter = Adapter(
        random_adapter(fresh(bases, "wide")).layers,
        AdapterFacts(source="me/wide-lora", base_model="bases/wide"),
    )
    with pytest.raises(AdapterError) as caught:
        apply_adapters(pipe, [Weighted(adapter)], "bases/epsilon")
    said = str(caught.value)
    assert "me/wide-lora (made for bases/wide) does not fit bases/epsilon" in said
    assert said.endswith('base="bases/wide"')
    assert "\n" not in said
    assert not pipe.get_list_adapters()


def test_an_adapter_for_another_family_is_refused(pipe: Any) -> None:
    layer = LowRank(torch.ones(2, 16), torch.ones(16, 2), 2)
    for component in ("transformer", "text_encoder_2"):
        adapter = Adapter({component: {"blocks.0.to_q": layer}}, AdapterFacts(source="me/flux"))
        with pytest.raises(AdapterError, match=r"me/flux does not fit the base: of its 1 layers 1"):
            apply_adapters(pipe, [Weighted(adapter)])


def test_one_layer_that_fits_nothing_is_enough_to_refuse(pipe: Any) -> None:
    layers = random_adapter(pipe).layers["unet"]
    stray = {**layers, "down_blocks.9.to_q": next(iter(layers.values()))}
    with pytest.raises(AdapterError, match=r"layers 1 are not in the base and 0 have another"):
        apply_adapters(pipe, [Weighted(Adapter({"unet": stray}))])
    name, layer = next(iter(layers.items()))
    kernel = LowRank(layer.down[..., None, None].repeat(1, 1, 3, 3), layer.up, 1)
    with pytest.raises(AdapterError, match=r"0 are not in the base and 1 have another shape"):
        apply_adapters(pipe, [Weighted(Adapter({"unet": {**layers, name: kernel}}))])


def test_an_adapter_without_layers_is_refused(pipe: Any) -> None:
    with pytest.raises(AdapterError, match=r"has no layers"):
        apply_adapters(pipe, [Weighted(Adapter({"unet": {}}))])


def test_two_names_for_one_layer_are_refused(pipe: Any) -> None:
    """A file may call a layer of the text encoder with or without `text_model.`; one would be lost
    if it did both."""
    layers = random_adapter(pipe, {"text_encoder": ["layers.0.self_attn.q_proj"]}).layers
    ((name, layer),) = layers["text_encoder"].items()
    both = {name.removeprefix("text_model."): layer, f"text_model.{name}": layer}
    assert len(both) == 2
    with pytest.raises(AdapterError, match="two of its layers are one"):
        apply_adapters(pipe, [Weighted(Adapter({"text_encoder": both}))])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_bases_take_adapters(pipe: Any, dtype: torch.dtype) -> None:
    pipe.to(dtype)
    apply_adapters(
        pipe, [Weighted(random_adapter(pipe, {"unet": ATTENTION, "text_encoder": TEXT}))], ""
    )
    assert pipe.unet.dtype == dtype
