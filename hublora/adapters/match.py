"""Matches an adapter's updates to the layers of a base model, before every load and in
header-only inspection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hublora.adapters.adapter import AdapterFacts, LowRank
from hublora.adapters.layer_specs import LayerSpec
from hublora.adapters.stacked_layers import is_stacked
from hublora.errors import AdapterError

Shape = tuple[int, ...]
Names = Mapping[str, Mapping[str, str]]  # component -> name in files -> the base's own name


@dataclass(frozen=True)
class LayerMatch:
    """The layers of a base model that updates belong to.

    Attributes:
        matched: (component, name in the file) -> the base model's name.
        missing: (component, name in the file) without a layer in the base model.
        wrong_shape: (component, name in the file) whose layer has another shape there.
    """

    matched: Mapping[tuple[str, str], str] = field(default_factory=dict)
    missing: tuple[tuple[str, str], ...] = ()
    wrong_shape: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> int:
        return len(self.matched) + len(self.missing) + len(self.wrong_shape)

    @property
    def fraction(self) -> float:
        """Matched updates divided by all, 0 to 1."""
        return len(self.matched) / self.total if self.total else 0.0


def match_layers(
    layers: Mapping[str, Mapping[str, LowRank | LayerSpec]],
    base: Mapping[str, Mapping[str, Shape]],
    names: Names,
    flattened: bool,
) -> LayerMatch:
    """Match each update to a layer of the base model.

    Args:
        layers: Component -> name in the file -> update, or its spec.
        base: Component -> layer -> shape of its weight, [out, in] or [out, in, kh, kw].
        names: Component -> name in files -> layer (`hublora.adapters.layer_names`).
        flattened: Whether names in the file have `_` for `.`, as in kohya's layout; some may
            have dots all the same.
    """
    matched: dict[tuple[str, str], str] = {}
    missing, wrong_shape = [], []
    for component, modules in layers.items():
        known = dict(names.get(component, {}))
        if flattened:
            known |= {name.replace(".", "_"): own for name, own in known.items()}
        for module, layer in modules.items():
            own = known.get(module)
            if own is None and is_stacked(module, base.get(component, {}), flattened):
                wrong_shape.append((component, module))  # with the stack's rows it would be split
            elif own is None:
                missing.append((component, module))
            elif not fits_shape(*_shape(layer), base[component][own]):
                wrong_shape.append((component, module))
            else:
                matched[component, module] = own
    return LayerMatch(matched, tuple(missing), tuple(wrong_shape))


def fits_shape(out: int, inputs: Shape, weight: Shape) -> bool:
    """Tell whether an update of this shape can be added to a weight of this shape.

    A 1×1 convolution and a linear layer are equivalent, and files write either for both; LyCORIS
    flattens the kernels of convolutions.
    """
    if out != weight[0] or math.prod(inputs) != math.prod(weight[1:]):
        return False
    pointwise = all(size == 1 for size in (*inputs[1:], *weight[2:]))
    return inputs == weight[1:] or pointwise or len(inputs) == 1


def reshape_update(layer: LowRank, weight: Shape) -> LowRank:
    """Return the update reshaped for a weight; `fits_shape` must hold."""
    ones = (1,) * (len(weight) - 2)
    down, up = (layer.rank, *weight[1:]), (weight[0], layer.rank, *ones)
    if (tuple(layer.down.shape), tuple(layer.up.shape)) == (down, up):
        return layer
    return replace(layer, down=layer.down.reshape(down), up=layer.up.reshape(up))


def check_match(match: LayerMatch, facts: AdapterFacts, label: str, base: str) -> None:
    """Refuse an adapter unless all of its layers are matched, each to one of its own.

    Args:
        match: The layers of the base model that the updates belong to.
        facts: Facts about the adapter.
        label: Name of the adapter in messages.
        base: Name of the base model in messages.

    Raises:
        AdapterError: It names the adapter, the base model and, if known, the one it was trained on.
    """
    if not match.total:
        raise AdapterError(f"{label} has no layers.")
    if not match.missing and not match.wrong_shape:
        if len({(component, own) for (component, _), own in match.matched.items()}) < len(
            match.matched
        ):
            raise AdapterError(f"{label} does not fit {base}: two of its layers are one there.")
        return
    stated = facts.base_model
    made_for = f" (made for {stated})" if stated and stated != base else ""
    raise AdapterError(
        f"{label}{made_for} does not fit {base}: of its {match.total} layers "
        f"{len(match.missing)} are not in the base and {len(match.wrong_shape)} have another shape "
        "there.",
        f"Name the base it was made for: --base {stated}"
        if made_for
        else "Name the base it was made for with --base.",
    )


def _shape(layer: LowRank | LayerSpec) -> tuple[int, Shape]:
    if isinstance(layer, LayerSpec):
        return layer.out, layer.inputs
    return int(layer.up.shape[0]), tuple(layer.down.shape[1:])
