"""The adapters of one pipeline: made ready once, then let act in any combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.layer_names import names_in_files
from hublora.adapters.match import check_fit, fit_layers, in_shape
from hublora.errors import ConfigError
from hublora.generation.lora.component import ComponentLora
from hublora.generation.lora.packed import PackedLora, stack_up

NAME = "hublora"


@dataclass(frozen=True, eq=False)
class FittedAdapter:
    """An adapter that is ready to act on one base.

    Attributes:
        label: What it is called in messages.
        stacks: Component -> its updates.
    """

    label: str
    stacks: Mapping[str, PackedLora]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(stack.nbytes for stack in self.stacks.values())


class LoraManager:
    """Puts adapters on a pipeline, as one PEFT adapter of it.

    Args:
        pipe: A diffusers pipeline; adapters that it has already stop acting.
        room: Ranks that each layer keeps room for (`hublora.generation.lora.component`).

    Attributes:
        name: Of the PEFT adapter.
    """

    def __init__(self, pipe: Any, room: int = 0) -> None:
        self._pipe, self._room = pipe, room
        self.name = _free_name(pipe)
        self.racks: dict[str, ComponentLora] = {}
        self._layers: dict[str, Layers] = {}
        for component in pipe.get_list_adapters():
            _silence(getattr(pipe, component))

    def prepare(self, adapter: Adapter, label: str, base: str) -> FittedAdapter:
        """Return the adapter in the base's own shapes, type and layer names.

        Raises:
            AdapterError: A tensor of it does not fit the base.
            ConfigError: The base's weights are not there to look at.
        """
        if not adapter.layers:  # only learned words
            return FittedAdapter(label, {})
        for component in adapter.layers:
            model = getattr(self._pipe, component, None)
            if component not in self._layers and isinstance(model, torch.nn.Module):
                self._layers[component] = layers_of(model)
        fitted = fit_to_layers(self._layers, adapter, label, base)
        return FittedAdapter(label, {name: self._stack(name, own) for name, own in fitted.items()})

    def rack(self, component: str) -> ComponentLora:
        """Return the layers of a component that carry adapters."""
        if component not in self.racks:
            model = getattr(self._pipe, component)
            self.racks[component] = ComponentLora(
                model, self.name, self._room, lambda: self._pipe._execution_device
            )
        return self.racks[component]

    def _stack(self, component: str, layers: Mapping[str, LowRank]) -> PackedLora:
        model = getattr(self._pipe, component)
        weights = {}
        if any(one.magnitude is not None for one in layers.values()):
            weights = {name: _weight_of(model, name) for name in layers}
        return stack_up(layers, weights, next(model.parameters()).dtype)


@dataclass(frozen=True)
class Layers:
    """What of a component can be adapted.

    Attributes:
        shapes: Layer -> shape of its weight.
        names: Name in files -> layer.
    """

    shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str]


def layers_of(model: torch.nn.Module) -> Layers:
    """Return what of a model can be adapted."""
    model = getattr(model, "_orig_mod", model)
    shapes = layer_shapes(model)
    return Layers(shapes, names_in_files(model, shapes))


def layer_shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the weight's shape, [out, in] or [out, in, kh, kw], of each layer that can be adapted.

    Layers that already carry an adapter are counted as the layer below.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if ".lora_" not in name and isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            shapes[name.removesuffix(".base_layer")] = tuple(module.weight.shape)
    return shapes


def fit_to_base(
    pipe: Any, adapter: Adapter, label: str, base: str
) -> Mapping[str, Mapping[str, LowRank]]:
    """Return the adapter's updates under the base's own layer names, in its own shapes.

    Raises:
        AdapterError: Naming both, when layers are missing from the base or have other shapes.
    """
    there = {
        component: layers_of(model)
        for component in adapter.layers
        if isinstance(model := getattr(pipe, component, None), torch.nn.Module)
    }
    return fit_to_layers(there, adapter, label, base)


def fit_to_layers(
    there: Mapping[str, Layers], adapter: Adapter, label: str, base: str
) -> Mapping[str, Mapping[str, LowRank]]:
    """Return what `fit_to_base` does, for a base whose layers are known."""
    shapes = {component: layers.shapes for component, layers in there.items()}
    names = {component: layers.names for component, layers in there.items()}
    fit = fit_layers(adapter.layers, shapes, names, adapter.facts.layout == "kohya")
    check_fit(fit, adapter.facts, label, base)
    fitted: dict[str, dict[str, LowRank]] = {component: {} for component in adapter.layers}
    for (component, module), own in fit.placed.items():
        layer = adapter.layers[component][module]
        fitted[component][own] = in_shape(layer, shapes[component][own])
    return fitted


def _weight_of(model: Any, name: str) -> torch.Tensor:
    layer = getattr(model, "_orig_mod", model).get_submodule(name)
    weight = getattr(layer, "base_layer", layer).weight
    if weight.is_meta:
        raise ConfigError(
            "A DoRA adapter cannot be added to a pipeline that is offloaded layer by layer.",
            "Name it in `hublora.load`, or offload with --offload model.",
        )
    return weight


def _silence(model: torch.nn.Module) -> None:
    """Let no adapter of a component act."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.set_adapter([], inference_mode=True)


def _free_name(pipe: Any) -> str:
    """Return a name for PEFT that no adapter has and that is a part of no other's.

    PEFT's hotswap matches names as substrings, and module names cannot contain dots.
    """
    taken = {name for names in pipe.get_list_adapters().values() for name in names}
    if not any(NAME in name for name in taken):
        return NAME
    number = 2
    while f"bank{number}_" in taken:
        number += 1
    return f"bank{number}_"
