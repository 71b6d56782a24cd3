"""Adapters as a pipeline takes them: every update in the shape, type and order of its layers.

The numbers of one component lie one after the other in memory, so that moving an adapter to a
device is one copy for any number of layers.
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
    """One adapter's updates of one component.

    Attributes:
        layers: Dotted names of the layers.
        ranks: Rank in each layer.
        flat: Every number, [n]; the tensors below are views of it.
        downs: A of each layer, [rank, in] or [rank, in, kh, kw].
        ups: scale · B of each layer, [out, rank] or [out, rank, 1, 1]; times c for DoRA.
        dora_scales: c − 1 of each layer, [out] (`hublora.generation.lora.dora`); empty for LoRA.
        serial: Identifies the adapter; shared by its copies on other devices.
    """

    layers: tuple[str, ...]
    ranks: tuple[int, ...]
    flat: torch.Tensor
    downs: Sequence[torch.Tensor]
    ups: Sequence[torch.Tensor]
    dora_scales: Sequence[torch.Tensor] = ()
    serial: int = field(default_factory=lambda: next(_serials))

    @property
    def layout(self) -> tuple[tuple[str, ...], tuple[int, ...], bool]:
        """Layers, ranks, and whether it is DoRA; equal for adapters that fit the same buffers."""
        return self.layers, self.ranks, bool(self.dora_scales)

    @property
    def nbytes(self) -> int:
        return self.flat.nbytes

    def on(self, device: torch.device) -> PackedLora:
        """Return a copy on a device; itself if it is there."""
        if self.flat.device == device:
            return self
        flat = self.flat.to(device, non_blocking=True)
        return _viewed(self, flat, [*self.downs, *self.ups, *self.dora_scales])


def pack(
    layers: Mapping[str, LowRank], weights: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> PackedLora:
    """Return the updates of a component as one block of memory on the CPU.

    Args:
        layers: Name of a layer -> its update, in the layer's own shape.
        weights: Name of a layer -> its base weight, which DoRA needs; may be empty for LoRA.
        dtype: Type of the component.

    Raises:
        AdapterError: A number is too large for the type.
    """
    downs = [one.down.to(dtype) for one in layers.values()]
    ups, dora_scales = [], []
    for name, one in layers.items():
        up = one.up if one.scale == 1.0 else one.up.float() * one.scale
        if one.magnitude is not None:
            factors = row_factors(one, weights[name])
            up = up.float() * factors.reshape(-1, *[1] * (up.ndim - 1))
            dora_scales.append((factors - 1).to(dtype))
        ups.append(up.to(dtype))
    numbers = [*downs, *ups, *dora_scales]
    flat = _flatten_dense_tensors(numbers)
    if not all(math.isfinite(end) for end in torch.aminmax(flat)):
        raise AdapterError(
            f"The adapter holds numbers that are too large for {str(dtype)[6:]}.",
            "Generate with --dtype float32, or use another adapter.",
        )
    ranks = tuple(one.rank for one in layers.values())
    return _viewed(PackedLora(tuple(layers), ranks, flat, downs, ups, dora_scales), flat, numbers)


def _viewed(packed: PackedLora, flat: torch.Tensor, like: list[torch.Tensor]) -> PackedLora:
    views = _unflatten_dense_tensors(flat, like)
    count = len(packed.layers)
    return replace(
        packed,
        flat=flat,
        downs=views[:count],
        ups=views[count : 2 * count],
        dora_scales=views[2 * count :],
    )
