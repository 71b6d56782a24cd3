"""Every layout that other tools write, for every family with a transformer, over all of its layers:
each tensor is read into the layer that it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from hublora.adapters.adapter import LowRank
from hublora.adapters.layer_names import file_names
from hublora.adapters.match import match_layers
from hublora.adapters.parse import read_layers
from hublora.adapters.stacked_layers import split_stacked, stack
from hublora.families import family_of_pipeline
from hublora.generation.lora.manager import layer_shapes
from tests.flow_pipelines import FLOW_PIPELINES

Tensors = dict[str, torch.Tensor]
Layers = Mapping[str, LowRank]
FAMILIES = ("flux-dev", "flux2-klein", "z-image", "qwen-image", "sd3", "krea2", "chroma")
LAYOUTS: dict[str, tuple[bool, Callable[[str], str], tuple[str, str]]] = {
    "diffusers": (False, "transformer.{}".format, ("lora_A", "lora_B")),
    "bare": (False, "{}".format, ("lora_A", "lora_B")),
    "peft": (False, "base_model.model.{}".format, ("lora_A", "lora_B")),
    "peft in memory": (False, "{}".format, ("lora_A.default", "lora_B.default")),
    "older diffusers": (False, "transformer.{}".format, ("lora.down", "lora.up")),
    "lycoris": (False, lambda n: "lycoris_" + n.replace(".", "_"), ("lora_down", "lora_up")),
    "OneTrainer": (
        False,
        lambda n: "lora_transformer_" + n.replace(".", "_"),
        ("lora_down", "lora_up"),
    ),
    "musubi": (False, lambda n: "lora_unet_" + n.replace(".", "_"), ("lora_down", "lora_up")),
    "ai-toolkit, own names": (False, "diffusion_model.{}".format, ("lora_A", "lora_B")),
    "ai-toolkit": (True, "diffusion_model.{}".format, ("lora_A", "lora_B")),
    "whole model": (True, "model.diffusion_model.{}".format, ("lora_down", "lora_up")),
    "sd-scripts": (True, lambda n: "lora_unet_" + n.replace(".", "_"), ("lora_down", "lora_up")),
}


@pytest.fixture(scope="module")
def updates() -> dict[str, tuple[dict[str, tuple[int, ...]], dict[str, LowRank]]]:
    """Family -> shapes of all layers of its tiny transformer, and an update of each known one."""
    found = {}
    for name in FAMILIES:
        pipe = FLOW_PIPELINES[name]()
        shapes = layer_shapes(pipe.transformer)
        names, generator = family_of_pipeline(pipe).names, torch.Generator().manual_seed(0)
        layers = {
            layer: LowRank(
                torch.randn(2, inputs, generator=generator),
                torch.randn(out, 2, generator=generator),
                4.0,
            )
            for layer, (out, inputs, *kernel) in shapes.items()
            if names.knows(layer) and not kernel
        }
        found[name] = shapes, layers
    return found


def written(layers: Layers, name_of: Callable[[str], str], halves: tuple[str, str]) -> Tensors:
    tensors = {}
    for layer, update in layers.items():
        name = name_of(layer)
        tensors[f"{name}.{halves[0]}.weight"] = update.down
        tensors[f"{name}.{halves[1]}.weight"] = update.up
        tensors[f"{name}.alpha"] = torch.tensor(update.alpha)
    return tensors


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_read_into_its_layer(
    family: str,
    layout: str,
    updates: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, LowRank]]],
) -> None:
    from hublora.families.registry import FAMILIES as REGISTRY

    shapes, layers = updates[family]
    is_native, name_of, halves = LAYOUTS[layout]
    names = {
        "flux-dev": "flux",
        "sd3": "stable-diffusion-3",
    }
    own = REGISTRY[names.get(family, family)].names
    expected, native = layers, own.native_layers(list(layers))
    in_file: Layers = layers
    if is_native:
        in_file = stack(layers, shapes, native)
        in_native = {part for parts in native.values() for part in parts}
        expected = {name: one for name, one in layers.items() if name in in_native}
    tensors = written(in_file, name_of, halves)
    read = read_layers(tensors, {})
    assert read.keys() == {"transformer"}
    flat = name_of("a.b").endswith("a_b")
    split = split_stacked(read, {"transformer": shapes}, flat)
    fit = match_layers(
        split, {"transformer": shapes}, {"transformer": file_names(list(shapes))}, flat
    )
    assert not fit.missing
    assert not fit.wrong_shape
    found = {name: split["transformer"][module] for (_, module), name in fit.matched.items()}
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        ours = found[name].scale * found[name].up @ found[name].down
        assert torch.allclose(ours, one.scale * one.up @ one.down, rtol=1e-4, atol=1e-4), name
