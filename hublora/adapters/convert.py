"""Converts adapters between layouts: names and metadata change, tensors do not.

to          is lossless                         is not
kohya       always: LoHa and LoKr keep their factors
diffusers   LoRA and DoRA                       LoHa, LoKr: low rank, with an error
peft        LoRA and DoRA                       LoHa, LoKr: low rank, with an error
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.layer_names import WRAPPER
from hublora.adapters.layer_specs import read_layer_specs
from hublora.adapters.match import reshape_update
from hublora.adapters.stacked_layers import stack
from hublora.adapters.tensor_names import is_bundled, parse_name
from hublora.errors import AdapterError
from hublora.families.registry import (
    diffusers_name,
    families_of_adapter,
    family_of_adapter,
    unflatten,
)

if TYPE_CHECKING:
    import torch

Names = Mapping[str, Mapping[str, str]]  # component -> name in the file -> the layer's own


def diffusers_names(adapter: Adapter, base_names: Names | None = None) -> dict[str, dict[str, str]]:
    """Return component -> name in the file -> name of the layer in diffusers' layout.

    Args:
        adapter: An adapter with the names of its file.
        base_names: Component -> name in files -> layer of the base model; None without one.

    Raises:
        AdapterError: A flattened name does not determine its layer, or the base model has no such
            layer.
    """
    flattened = adapter.facts.layout == "kohya"
    names: dict[str, dict[str, str]] = {}
    for component, modules in adapter.layers.items():
        known = dict((base_names or {}).get(component, {}))
        if flattened:
            known |= {name.replace(".", "_"): own for name, own in known.items()}
        for module in modules:
            is_flat = flattened and "." not in module
            own = (
                known.get(module)
                if base_names
                else unflatten(module)
                if is_flat
                else diffusers_name(module)
            )
            if own is None:
                raise AdapterError(
                    f"The base model's {component} has no layer {module!r}."
                    if base_names
                    else f"The name {module!r} does not determine a layer of the {component}.",
                    "Name the base model that the adapter was trained on: --base …",
                )
            text = component.startswith("text_encoder") and own.startswith("encoder.layers.")
            names.setdefault(component, {})[module] = WRAPPER + own if text else own
    return names


def with_layer_names(adapter: Adapter, names: Names) -> Adapter:
    """Return the adapter with its layers renamed: component -> present name -> new name."""
    layers = {
        component: {names[component][module]: layer for module, layer in modules.items()}
        for component, modules in adapter.layers.items()
    }
    return replace(adapter, layers=layers)


def with_kernels(
    adapter: Adapter, base_shapes: Mapping[str, Mapping[str, tuple[int, ...]]] | None = None
) -> Adapter:
    """Return the adapter with the updates of convolutions in the shape of a convolution.

    LyCORIS flattens kernels, which diffusers and PEFT do not load.

    Args:
        adapter: An adapter with diffusers' layer names.
        base_shapes: Component -> layer -> shape of its weight in the base model; None takes the
            kernels of published ones.
    """
    facts = adapter.facts
    family = family_of_adapter(facts.architecture, facts.family, adapter.layers)

    def shaped(component: str, name: str, layer: LowRank) -> LowRank:
        if layer.down.ndim != 2:
            return layer
        if base_shapes is not None:
            weight = base_shapes.get(component, {}).get(name)
            return layer if weight is None else reshape_update(layer, weight)
        kernel = None
        if component == family.denoiser:
            kernel = family.names.kernel(name, facts.architecture)
        columns = layer.down.shape[1]
        if kernel is None or columns % (kernel[0] * kernel[1]):
            return layer
        weight = (layer.up.shape[0], columns // (kernel[0] * kernel[1]), *kernel)
        return reshape_update(layer, weight)

    layers = {
        component: {name: shaped(component, name, layer) for name, layer in modules.items()}
        for component, modules in adapter.layers.items()
    }
    return replace(adapter, layers=layers)


def with_scale_in_weights(adapter: Adapter) -> Adapter:
    """Return the adapter with alpha = rank in every layer, its scale taken into `up`.

    Programs that read diffusers' names without their metadata take alpha for the rank.
    """
    layers = {
        component: {
            module: layer
            if layer.scale == 1
            else replace(layer, up=layer.up * layer.scale, alpha=float(layer.rank))
            for module, layer in modules.items()
        }
        for component, modules in adapter.layers.items()
    }
    return replace(adapter, layers=layers)


def with_max_rank(adapter: Adapter, rank: int) -> Adapter:
    """Return the adapter with layers of at most this rank, each its best approximation.

    Raises:
        AdapterError: It is a DoRA, whose magnitudes are those of the update at its own rank.
    """
    from hublora.adapters.lycoris import truncate

    def reduce(layer: LowRank) -> LowRank:
        if layer.rank <= rank:
            return layer
        if layer.magnitude is not None:
            raise AdapterError("The rank of a DoRA cannot be reduced.", "Leave --rank out.")
        up, down, error = truncate(layer.up.flatten(1), layer.down.flatten(1), 0.0, rank)
        new_rank = up.shape[1]
        return replace(
            layer,
            up=up.reshape(-1, new_rank, *layer.up.shape[2:]).to(layer.up.dtype),
            down=down.reshape(new_rank, *layer.down.shape[1:]).to(layer.down.dtype),
            alpha=layer.scale * new_rank,
            error=max(error, layer.error),
        )

    layers = {
        component: {module: reduce(layer) for module, layer in modules.items()}
        for component, modules in adapter.layers.items()
    }
    return replace(adapter, layers=layers)


def with_stacked_layers(
    adapter: Adapter, base_shapes: Mapping[str, Mapping[str, tuple[int, ...]]] | None = None
) -> Adapter | None:
    """Return the adapter under the names of its family's original implementation, which stacks
    layers; None if kohya's tools use diffusers' names for the family, or nothing is stacked.

    Args:
        adapter: An adapter with diffusers' layer names.
        base_shapes: Component -> layer -> shape of its weight in the base model, if it is known.

    Raises:
        AdapterError: The family is not known, or as `stack`.
    """
    families = families_of_adapter(adapter.facts.architecture, adapter.facts.family, adapter.layers)
    stacking = {id(f.names): f for f in families if f.names.kohya_is_native and f.one_file}
    if not stacking:
        return None
    if len({id(family.names) for family in families}) > 1:
        raise AdapterError(
            f"The layers could be those of {' or '.join(f.name for f in families)}, whose original "
            "names differ.",
            "Name the base model that the adapter was trained on: --base …",
        )
    (family,) = stacking.values()
    layers = dict(adapter.layers)
    shapes = None if base_shapes is None else base_shapes.get(family.denoiser)
    own = layers.get(family.denoiser, {})
    layers[family.denoiser] = stack(own, shapes, family.names.native_layers(own))
    return replace(adapter, layers=layers)


def kohya_names(
    adapter: Adapter, names: Names, base_layers: Mapping[str, Collection[str]] | None = None
) -> dict[str, dict[str, str]]:
    """Return component -> name in the file -> kohya's, with its prefix.

    Args:
        adapter: The adapter to name.
        names: As `diffusers_names` returns them.
        base_layers: Component -> all layers of the base model's; None assumes a published one.

    Raises:
        AdapterError: The layout has no prefix for a component of this adapter.
    """
    family = family_of_adapter(adapter.facts.architecture, adapter.facts.family, adapter.layers)
    prefixes = family.names.kohya_prefixes
    found: dict[str, dict[str, str]] = {}
    for component, modules in names.items():
        if component not in prefixes:
            raise AdapterError(
                f"kohya's layout has no prefix for the component {component!r}; "
                f"it has them for {', '.join(prefixes)}."
            )
        dotted = {name: name for name in modules.values()}
        if component == family.denoiser:
            all_layers = (base_layers or {}).get(component)
            dotted |= family.names.kohya_layers(list(dotted), all_layers)
        found[component] = {
            module: f"{prefixes[component]}_{dotted[name].replace('.', '_')}"
            for module, name in modules.items()
        }
    return found


def kohya_tensors(
    tensors: Mapping[str, torch.Tensor], adapter: Adapter, names: Names
) -> dict[str, torch.Tensor]:
    """Return a file's own tensors under kohya's names, each layer with its alpha.

    Args:
        tensors: Name -> tensor of a file.
        adapter: The adapter that was read from them.
        names: As `kohya_names` returns them.

    Raises:
        AdapterError: A LoKr has a scale that the layout cannot express.
    """
    import torch

    converted: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if is_bundled(name):
            continue
        parsed = parse_name(name)
        assert parsed is not None, "an adapter that was read has no other tensors"
        component, module, part = parsed
        if part == "magnitude":
            ones = [1] * (adapter.layers[component][module].up.ndim - 1)
            tensor = tensor.reshape(-1, *ones)
        converted[f"{names[component][module]}.{_KOHYA_PARTS.get(part, part)}"] = tensor
    specs = read_layer_specs({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for component, modules in adapter.layers.items():
        for module, layer in modules.items():
            key = f"{names[component][module]}.alpha"
            rank = specs[component][module].rank
            if rank is None and abs(layer.scale - 1) > 1e-6:
                raise AdapterError(
                    f"kohya's layout cannot express the scale of the LoKr layer {module!r}, "
                    f"{layer.scale:g}.",
                    "Convert it with --to diffusers.",
                )
            converted.setdefault(key, torch.tensor(layer.scale * (rank or 1)))
    return converted


_KOHYA_PARTS = {
    "down": "lora_down.weight",
    "up": "lora_up.weight",
    "mid": "lora_mid.weight",
    "magnitude": "dora_scale",
}


def kohya_metadata(adapter: Adapter) -> dict[str, str]:
    """Return the metadata that kohya's tools and ComfyUI read."""
    facts = adapter.facts
    found: dict[str, Any] = {
        "ss_network_module": "networks.lora" if facts.methods == ("lora",) else "lycoris.kohya",
        "ss_network_dim": facts.ranks[-1] if facts.ranks else None,
        "ss_network_alpha": facts.alphas[-1] if facts.alphas else None,
    }
    return {key: str(value) for key, value in found.items() if value is not None}
