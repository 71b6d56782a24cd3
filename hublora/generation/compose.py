"""Puts adapters on a pipeline, every tensor of them accounted for.

Several adapters act as the exact weighted sum of their updates: each layer computes
`W x + Σ_k w_k · scale_k · up_k(down_k(x))` (PEFT's active adapters), nothing is merged or
approximated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hublora.adapters.adapter import Adapter, LowRank, peft_config
from hublora.adapters.fit import check_fit, fit_layers, in_shape
from hublora.adapters.formats import lora_tensors
from hublora.adapters.modules import names_in_files
from hublora.errors import AdapterError
from hublora.generation.dora import settle_dora


@dataclass(frozen=True)
class Part:
    """One adapter of a composition and its weight."""

    adapter: Adapter
    weight: float = 1.0

    @property
    def label(self) -> str:
        return self.adapter.facts.source or self.adapter.facts.title or "the adapter"


def apply_adapters(pipe: Any, parts: Sequence[Part], base: str) -> list[str]:
    """Add the adapters to the pipeline and make them the active ones.

    Args:
        pipe: A diffusers pipeline.
        parts: What to add; the same adapter may come twice.
        base: What the pipeline is called in messages.

    Returns:
        The names that the adapters have in the pipeline, in order.

    Raises:
        AdapterError: An adapter does not fit the base, or a tensor of it did not land anywhere.
    """
    fitted = [(part, fit_to_base(pipe, part.adapter, part.label, base)) for part in parts]
    names = []
    for part, layers in fitted:
        name = _free_name(pipe, part.label)
        _add(pipe, layers, name)
        _account_for(pipe, layers, name, part.label)
        names.append(name)
    if names:
        pipe.set_adapters(names, adapter_weights=[part.weight for part in parts])
    return names


def fit_to_base(
    pipe: Any, adapter: Adapter, label: str, base: str
) -> Mapping[str, Mapping[str, LowRank]]:
    """Return the adapter's updates under the base's own layer names, in its own shapes.

    Raises:
        AdapterError: Naming both, when layers are missing from the base or have other shapes.
    """
    models = {
        component: model
        for component in adapter.layers
        if isinstance(model := getattr(pipe, component, None), torch.nn.Module)
    }
    shapes = {component: layer_shapes(model) for component, model in models.items()}
    names = {
        component: names_in_files(model, shapes[component]) for component, model in models.items()
    }
    fit = fit_layers(adapter.layers, shapes, names, adapter.facts.layout == "kohya")
    check_fit(fit, adapter.facts, label, base)
    fitted: dict[str, dict[str, LowRank]] = {component: {} for component in adapter.layers}
    for (component, module), own in fit.placed.items():
        layer = adapter.layers[component][module]
        fitted[component][own] = in_shape(layer, shapes[component][own])
    return fitted


def layer_shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the weight's shape, [out, in] or [out, in, kh, kw], of each layer that can be adapted.

    Layers that already carry an adapter are counted as the layer below.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if ".lora_" not in name and isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            shapes[name.removesuffix(".base_layer")] = tuple(module.weight.shape)
    return shapes


def _add(pipe: Any, layers: Mapping[str, Mapping[str, LowRank]], name: str) -> None:
    """Hand the updates to diffusers in PEFT's naming, with a config that fits exactly."""
    for component, modules in layers.items():
        state = lora_tensors(f"{component}.", modules)
        config = {f"{component}.{key}": value for key, value in peft_config(modules).items()}
        model = getattr(pipe, component)
        if component.startswith("text_encoder"):
            pipe.load_lora_into_text_encoder(
                {_older_name(key): tensor for key, tensor in state.items()},
                network_alphas=None,
                text_encoder=model,
                prefix=component,
                adapter_name=name,
                metadata=config,
                _pipeline=pipe,
            )
        else:
            model.load_lora_adapter(
                state, prefix=component, adapter_name=name, metadata=config, _pipeline=pipe
            )


def _older_name(key: str) -> str:
    """Return the name that diffusers understands for every layer of a text encoder: it refuses
    adapters in PEFT's naming that change none of its attention."""
    key = key.replace(".lora_A.", ".lora_linear_layer.down.")
    return key.replace(".lora_B.", ".lora_linear_layer.up.")


def _account_for(
    pipe: Any, layers: Mapping[str, Mapping[str, LowRank]], name: str, label: str
) -> None:
    """Check that each tensor is now a weight of the model, with its values and its scale.

    diffusers 0.42 drops tensors that it does not place, with a warning at most.
    """
    for component, modules in layers.items():
        found = dict(getattr(pipe, component).named_modules())
        for module, layer in modules.items():
            placed = found.get(module)
            lora = getattr(placed, "lora_A", {})
            if name not in lora:
                raise AdapterError(f"The layer {module!r} of {label} was not applied.")
            down, up = lora[name].weight, placed.lora_B[name].weight  # type: ignore[union-attr]
            same = _equal(down, layer.down) and _equal(up, layer.up)
            if layer.magnitude is not None:
                length = placed.lora_magnitude_vector[name].weight.flatten()  # type: ignore[union-attr]
                same = same and _equal(length, layer.magnitude)
            scaling = placed.scaling[name]  # type: ignore[union-attr]
            if not same or abs(scaling - layer.scale) > 1e-6 * abs(layer.scale):
                raise AdapterError(f"The layer {module!r} of {label} was applied wrongly.")
            if layer.magnitude is not None:
                settle_dora(placed, name)


def _equal(placed: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.equal(placed.detach(), wanted.to(placed.device, placed.dtype))


def _free_name(pipe: Any, label: str) -> str:
    """Return a name for PEFT that no adapter has and that is a part of no other's.

    PEFT's hotswap matches names as substrings, and module names cannot contain dots.
    """
    taken = {name for names in pipe.get_list_adapters().values() for name in names}
    number = 0
    while f"adapter{number}_" in taken:
        number += 1
    return f"adapter{number}_"
