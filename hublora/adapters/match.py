"""Which layers of a base an adapter's updates land in: the one check before every load, which
header-only inspection makes too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hublora.adapters.adapter import AdapterFacts, LowRank
from hublora.adapters.layer_specs import Outline
from hublora.errors import AdapterError

Shape = tuple[int, ...]
Names = Mapping[str, Mapping[str, str]]  # component -> name in files -> the base's own name


@dataclass(frozen=True)
class Fit:
    """Where updates land.

    Attributes:
        placed: (component, module as the file names it) -> the base's own name.
        missing: Those that the base has no layer for.
        misshapen: Those whose layer has another shape in the base.
    """

    placed: Mapping[tuple[str, str], str] = field(default_factory=dict)
    missing: tuple[tuple[str, str], ...] = ()
    misshapen: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> int:
        return len(self.placed) + len(self.missing) + len(self.misshapen)

    @property
    def share(self) -> float:
        """Of the updates, those that land, 0 to 1."""
        return len(self.placed) / self.total if self.total else 0.0


def fit_layers(
    layers: Mapping[str, Mapping[str, LowRank | Outline]],
    base: Mapping[str, Mapping[str, Shape]],
    names: Names,
    flattened: bool,
) -> Fit:
    """Look each update up among the base's layers.

    Args:
        layers: Component -> module as the file names it -> its update, or the outline of it.
        base: Component -> layer -> shape of its weight, [out, in] or [out, in, kh, kw].
        names: Names in files of the base's layers (`hublora.adapters.layer_names`).
        flattened: Whether the file's names have `_` for `.`, as kohya's do.
    """
    placed: dict[tuple[str, str], str] = {}
    missing, misshapen = [], []
    for component, modules in layers.items():
        known = dict(names.get(component, {}))
        if flattened:
            known = {name.replace(".", "_"): own for name, own in known.items()}
        for module, layer in modules.items():
            own = known.get(module)
            if own is None:
                missing.append((component, module))
            elif not fits(*_sides(layer), base[component][own]):
                misshapen.append((component, module))
            else:
                placed[component, module] = own
    return Fit(placed, tuple(missing), tuple(misshapen))


def fits(out: int, inputs: Shape, weight: Shape) -> bool:
    """Tell whether an update of these sides can be added to a weight of this shape.

    A 1×1 convolution and a linear layer are the same thing, and files write either for both;
    LyCORIS writes the kernels of convolutions flat.
    """
    if out != weight[0] or math.prod(inputs) != math.prod(weight[1:]):
        return False
    pointwise = all(size == 1 for size in (*inputs[1:], *weight[2:]))
    return inputs == weight[1:] or pointwise or len(inputs) == 1


def in_shape(layer: LowRank, weight: Shape) -> LowRank:
    """Return the update in the shape of a weight that it `fits`."""
    ones = (1,) * (len(weight) - 2)
    down, up = (layer.rank, *weight[1:]), (weight[0], layer.rank, *ones)
    if (tuple(layer.down.shape), tuple(layer.up.shape)) == (down, up):
        return layer
    return replace(layer, down=layer.down.reshape(down), up=layer.up.reshape(up))


def check_fit(fit: Fit, facts: AdapterFacts, label: str, base: str) -> None:
    """Refuse an adapter of which anything lands nowhere.

    Args:
        fit: What was found.
        facts: Of the adapter.
        label: What it is called in messages.
        base: What the base is called.

    Raises:
        AdapterError: Naming both and, if it is known, the base that the adapter was made for.
    """
    if not fit.total:
        raise AdapterError(f"{label} holds no layers.")
    if not fit.missing and not fit.misshapen:
        if len({(component, own) for (component, _), own in fit.placed.items()}) < len(fit.placed):
            raise AdapterError(f"{label} does not fit {base}: two of its layers are one there.")
        return
    stated = facts.base_model
    made_for = f" (made for {stated})" if stated and stated != base else ""
    raise AdapterError(
        f"{label}{made_for} does not fit {base}: of its {fit.total} layers {len(fit.missing)} are "
        f"not in the base and {len(fit.misshapen)} have another shape there.",
        f"Name the base it was made for: --base {stated}"
        if made_for
        else "Name the base it was made for with --base.",
    )


def _sides(layer: LowRank | Outline) -> tuple[int, Shape]:
    if isinstance(layer, Outline):
        return layer.out, layer.inputs
    return int(layer.up.shape[0]), tuple(layer.down.shape[1:])
