"""Which layers of a base an adapter's updates land in: the one check before every load, which
header-only inspection makes too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hublora.adapters.adapter import AdapterFacts, LowRank
from hublora.adapters.layer_specs import LayerSpec
from hublora.errors import AdapterError

Shape = tuple[int, ...]
Names = Mapping[str, Mapping[str, str]]  # component -> name in files -> the base's own name


@dataclass(frozen=True)
class LayerMatch:
    """Where updates land.

    Attributes:
        matched: (component, module as the file names it) -> the base's own name.
        missing: Names of layers that the base lacks.
        wrong_shape: Names of layers with another shape in the base.
    """

    matched: Mapping[tuple[str, str], str] = field(default_factory=dict)
    missing: tuple[tuple[str, str], ...] = ()
    wrong_shape: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> int:
        return len(self.matched) + len(self.missing) + len(self.wrong_shape)

    @property
    def fraction(self) -> float:
        """Of the updates, those that land, 0 to 1."""
        return len(self.matched) / self.total if self.total else 0.0


def match_layers(
    layers: Mapping[str, Mapping[str, LowRank | LayerSpec]],
    base: Mapping[str, Mapping[str, Shape]],
    names: Names,
    flattened: bool,
) -> LayerMatch:
    """Look each update up among the base's layers.

    Args:
        layers: Component -> module as the file names it -> its update, or the spec of it.
        base: Component -> layer -> shape of its weight, [out, in] or [out, in, kh, kw].
        names: Names in files of the base's layers (`hublora.adapters.layer_names`).
        flattened: Whether the file's names have `_` for `.`, as kohya's do.
    """
    matched: dict[tuple[str, str], str] = {}
    missing, wrong_shape = [], []
    for component, modules in layers.items():
        known = dict(names.get(component, {}))
        if flattened:
            known = {name.replace(".", "_"): own for name, own in known.items()}
        for module, layer in modules.items():
            own = known.get(module)
            if own is None:
                missing.append((component, module))
            elif not fits_shape(*_sides(layer), base[component][own]):
                wrong_shape.append((component, module))
            else:
                matched[component, module] = own
    return LayerMatch(matched, tuple(missing), tuple(wrong_shape))


def fits_shape(out: int, inputs: Shape, weight: Shape) -> bool:
    """Tell whether an update of these sides can be added to a weight of this shape.

    A 1×1 convolution and a linear layer are the same thing, and files write either for both;
    LyCORIS writes the kernels of convolutions flat.
    """
    if out != weight[0] or math.prod(inputs) != math.prod(weight[1:]):
        return False
    pointwise = all(size == 1 for size in (*inputs[1:], *weight[2:]))
    return inputs == weight[1:] or pointwise or len(inputs) == 1


def reshape_update(layer: LowRank, weight: Shape) -> LowRank:
    """Return the update in the shape of a weight that it `fits_shape`."""
    ones = (1,) * (len(weight) - 2)
    down, up = (layer.rank, *weight[1:]), (weight[0], layer.rank, *ones)
    if (tuple(layer.down.shape), tuple(layer.up.shape)) == (down, up):
        return layer
    return replace(layer, down=layer.down.reshape(down), up=layer.up.reshape(up))


def check_match(fit: LayerMatch, facts: AdapterFacts, label: str, base: str) -> None:
    """Refuse an adapter of which anything lands nowhere.

    Args:
        fit: Result of matching the adapter with the base.
        facts: Facts about the adapter.
        label: Name of the adapter in messages.
        base: Name of the base model in messages.

    Raises:
        AdapterError: Naming both and, if it is known, the base that the adapter was made for.
    """
    if not fit.total:
        raise AdapterError(f"{label} holds no layers.")
    if not fit.missing and not fit.wrong_shape:
        if len({(component, own) for (component, _), own in fit.matched.items()}) < len(
            fit.matched
        ):
            raise AdapterError(f"{label} does not fit {base}: two of its layers are one there.")
        return
    stated = facts.base_model
    made_for = f" (made for {stated})" if stated and stated != base else ""
    raise AdapterError(
        f"{label}{made_for} does not fit {base}: of its {fit.total} layers {len(fit.missing)} are "
        f"not in the base and {len(fit.wrong_shape)} have another shape there.",
        f"Name the base it was made for: --base {stated}"
        if made_for
        else "Name the base it was made for with --base.",
    )


def _sides(layer: LowRank | LayerSpec) -> tuple[int, Shape]:
    if isinstance(layer, LayerSpec):
        return layer.out, layer.inputs
    return int(layer.up.shape[0]), tuple(layer.down.shape[1:])
