"""Adapters as a pipeline takes them: every update in the shape, type and order of its layers.

The numbers of one component lie one after the other in memory, so that bringing an adapter to a
device is one copy, however many layers it has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from hublora.adapters.adapter import LowRank
from hublora.errors import AdapterError
from hublora.generation.lora.dora import row_factors

_serials = itertools.count()


@dataclass(frozen=True, eq=False)
class PackedLora:
    """What an adapter adds to one component.

    Attributes:
        modules: Names of the layers.
        ranks: Of each.
        flat: Every number of it, [n]; the others are views.
        downs: Of each layer, [rank, in] or [rank, in, kh, kw].
        ups: scale · up of each layer, [out, rank] or [out, rank, 1, 1]; times c for DoRA.
        longer: c − 1 of each layer, [out] (`hublora.generation.lora.dora`); empty for LoRA.
        serial: The same for copies on other devices, and for nothing else.
    """

    modules: tuple[str, ...]
    ranks: tuple[int, ...]
    flat: torch.Tensor
    downs: Sequence[torch.Tensor]
    ups: Sequence[torch.Tensor]
    longer: Sequence[torch.Tensor] = ()
    serial: int = field(default_factory=lambda: next(_serials))

    @property
    def layout(self) -> tuple[tuple[str, ...], tuple[int, ...], bool]:
        """What two stacks share that can lie in each other's place."""
        return self.modules, self.ranks, bool(self.longer)

    @property
    def nbytes(self) -> int:
        return self.flat.nbytes

    def on(self, device: torch.device) -> PackedLora:
        """Return it on a device, itself if it is there."""
        if self.flat.device == device:
            return self
        flat = self.flat.to(device, non_blocking=True)
        return _viewed(self, flat, [*self.downs, *self.ups, *self.longer])


def stack_up(
    layers: Mapping[str, LowRank], weights: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> PackedLora:
    """Return updates that fit a component as one stack on the CPU.

    Args:
        layers: The component's layers -> their updates, in the layers' own shapes.
        weights: Those layers' weights, which DoRA needs.
        dtype: Of the component.

    Raises:
        AdapterError: A number is too large for the type.
    """
    downs = [one.down.to(dtype) for one in layers.values()]
    ups, longer = [], []
    for name, one in layers.items():
        up = one.up if one.scale == 1.0 else one.up.float() * one.scale
        if one.magnitude is not None:
            factors = row_factors(one, weights[name])
            up = up.float() * factors.reshape(-1, *[1] * (up.ndim - 1))
            longer.append((factors - 1).to(dtype))
        ups.append(up.to(dtype))
    numbers = [*downs, *ups, *longer]
    flat = _flatten_dense_tensors(numbers)
    if not all(math.isfinite(end) for end in torch.aminmax(flat)):
        raise AdapterError(
            f"The adapter holds numbers that are too large for {str(dtype)[6:]}.",
            "Draw with --dtype float32, or use another adapter.",
        )
    ranks = tuple(one.rank for one in layers.values())
    return _viewed(PackedLora(tuple(layers), ranks, flat, downs, ups, longer), flat, numbers)


def _viewed(stack: PackedLora, flat: torch.Tensor, like: list[torch.Tensor]) -> PackedLora:
    views = _unflatten_dense_tensors(flat, like)
    count = len(stack.modules)
    return replace(
        stack,
        flat=flat,
        downs=views[:count],
        ups=views[count : 2 * count],
        longer=views[2 * count :],
    )
