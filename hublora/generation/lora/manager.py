"""Adapters of one pipeline: fitted to its layers once, then activated in any combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.layer_names import names_in_files
from hublora.adapters.match import check_match, match_layers, reshape_update
from hublora.adapters.stacked_layers import split_stacked
from hublora.errors import ConfigError
from hublora.families.registry import family_of_pipeline
from hublora.generation.lora.component import ComponentLora
from hublora.generation.lora.packed import PackedLora, pack
from hublora.memory.frozen_linear import compute_dtype, read_weight, weight_shape
from hublora.resolution.choose_base import check_family

NAME = "hublora"


@dataclass(frozen=True, eq=False)
class FittedAdapter:
    """An adapter in the layer names, shapes and types of one base.

    Attributes:
        label: Name of the adapter in messages.
        packed: Component -> its updates; empty for an adapter of token embeddings only.
    """

    label: str
    packed: Mapping[str, PackedLora]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(packed.nbytes for packed in self.packed.values())


class LoraManager:
    """Puts adapters on a pipeline, as one PEFT adapter of it.

    Args:
        pipe: A diffusers pipeline; adapters that it has already are deactivated.
        max_rank: Rank of every layer's buffers, at least (`hublora.generation.lora.component`).

    Attributes:
        pipe: The pipeline.
        name: Name of the PEFT adapter.
        components: Name of a component -> its buffers.
    """

    def __init__(self, pipe: Any, max_rank: int = 0) -> None:
        self.pipe, self._max_rank = pipe, max_rank
        self.name = _free_name(pipe)
        self.components: dict[str, ComponentLora] = {}
        self._layers: dict[str, Layers] = {}
        for component in pipe.get_list_adapters():
            _deactivate(getattr(pipe, component))

    def fit(self, adapter: Adapter, label: str, base: str) -> FittedAdapter:
        """Return the adapter in the base's own layer names, shapes and types.

        Args:
            adapter: In the names and shapes of its file.
            label: Name of the adapter in messages.
            base: Name of the base in messages.

        Raises:
            AdapterError: A tensor of it does not fit the base.
            ConfigError: It is a DoRA, and the base's weights are offloaded layer by layer.
        """
        if not adapter.layers:  # only token embeddings
            return FittedAdapter(label, {})
        for component in adapter.layers:
            model = getattr(self.pipe, component, None)
            if component not in self._layers and isinstance(model, torch.nn.Module):
                self._layers[component] = layers_of(model)
        check_family(adapter, label, family_of_pipeline(self.pipe), base)
        fitted = fit_to_layers(self._layers, adapter, label, base)
        return FittedAdapter(label, {name: self._pack(name, own) for name, own in fitted.items()})

    def component(self, name: str) -> ComponentLora:
        """Return the buffers of a component, without any layer if it has none yet."""
        if name not in self.components:
            model = getattr(self.pipe, name)
            self.components[name] = ComponentLora(
                model, self.name, self._max_rank, lambda: self.pipe._execution_device
            )
        return self.components[name]

    def _pack(self, component: str, layers: Mapping[str, LowRank]) -> PackedLora:
        model = getattr(self.pipe, component)
        weights = {}
        if any(one.magnitude is not None for one in layers.values()):
            weights = {name: _weight_of(model, name) for name in layers}
        return pack(layers, weights, compute_dtype(model))


@dataclass(frozen=True)
class Layers:
    """Layers of a component that an adapter can change.

    Attributes:
        shapes: Name of the layer -> shape of its weight, [out, in] or [out, in, kh, kw].
        names: Name in files -> name of the layer.
    """

    shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str]


def layers_of(model: torch.nn.Module) -> Layers:
    """Return the layers of a model that an adapter can change."""
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
            shapes[name.removesuffix(".base_layer")] = weight_shape(module)
    return shapes


def fit_to_base(
    pipe: Any, adapter: Adapter, label: str, base: str
) -> Mapping[str, Mapping[str, LowRank]]:
    """Return the adapter's updates under the base's own layer names, in its own shapes.

    Raises:
        AdapterError: Naming both, when layers are missing from the base or have other shapes.
    """
    check_family(adapter, label, family_of_pipeline(pipe), base)
    layers = {
        component: layers_of(model)
        for component in adapter.layers
        if isinstance(model := getattr(pipe, component, None), torch.nn.Module)
    }
    return fit_to_layers(layers, adapter, label, base)


def fit_to_layers(
    components: Mapping[str, Layers], adapter: Adapter, label: str, base: str
) -> Mapping[str, Mapping[str, LowRank]]:
    """Return the same as `fit_to_base`, for a base of which only the layers are known."""
    shapes = {component: layers.shapes for component, layers in components.items()}
    names = {component: layers.names for component, layers in components.items()}
    flattened = adapter.facts.layout == "kohya"
    updates = split_stacked(adapter.layers, shapes, flattened)
    fit = match_layers(updates, shapes, names, flattened)
    check_match(fit, adapter.facts, label, base)
    fitted: dict[str, dict[str, LowRank]] = {component: {} for component in updates}
    for (component, module), own in fit.matched.items():
        layer = updates[component][module]
        fitted[component][own] = reshape_update(layer, shapes[component][own])
    return fitted


def _weight_of(model: Any, name: str) -> torch.Tensor:
    layer = getattr(model, "_orig_mod", model).get_submodule(name)
    layer = getattr(layer, "base_layer", layer)
    if layer.weight.is_meta:
        raise ConfigError(
            "A DoRA adapter cannot be added to a pipeline that is offloaded layer by layer.",
            "Name it in `hublora.load`, or offload with --offload model.",
        )
    return read_weight(layer)


def _deactivate(model: torch.nn.Module) -> None:
    """Deactivate every adapter of a component."""
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
    while f"lora{number}_" in taken:
        number += 1
    return f"lora{number}_"
