"""Adapters of a denoiser by request: each part of a batch is changed by its own.

    y[i] = W x[i] + Σ_j w_ij · s_j · B_j A_j x[i]

A and B of the adapters of a request lie rank beside rank, those of all requests of a batch in one
tensor, and two products of batches of matrices (for convolutions, grouped ones) apply them. What
another request has in the batch never meets a request's numbers: neither its adapters nor an
overflow of theirs. Ranks are padded to a multiple of 16, so that the sums of a request are made in
the same order whatever the others' ranks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from hublora.generation.lora.component import Factors
from hublora.generation.lora.packed import PackedLora

RANK_STEP = 16

# The adapters of one request, with the weight of each, or one weight for each of its layers.
RequestLoras = Sequence[tuple[PackedLora, Factors]]


@dataclass(frozen=True, eq=False)
class _LayerRows:
    """Buffers of one layer for a batch of n requests.

    Attributes:
        down: A, [n, rank, in, …].
        up: Weighted B, [n, out, rank, …].
        dora_scale: Σ weight · (c − 1), [n, out]; None without DoRA.
    """

    down: torch.Tensor
    up: torch.Tensor
    dora_scale: torch.Tensor | None


class RowLora:
    """Applies the adapters of each request of a batch in the layers of one denoiser.

    Args:
        model: The denoiser, without adapters of its own.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._hooked: dict[str, _LayerHook] = {}
        self._key: tuple[Any, ...] = ()

    def set_rows(self, requests: Sequence[RequestLoras]) -> None:
        """Let the next calls have these adapters, until others are set.

        Args:
            requests: The adapters of each request, in the order of the batch; may be empty ones.
        """
        key = tuple(tuple((one.serial, _frozen(at)) for one, at in each) for each in requests)
        if key == self._key:
            return
        self._key = ()  # if what follows is interrupted
        used = {name for each in requests for packed, _ in each for name in packed.layers}
        for name in used - self._hooked.keys():
            self._hooked[name] = _LayerHook(self._model.get_submodule(name))
        updates = [_by_layer(each) for each in requests]
        for name, hook in self._hooked.items():
            hook.rows = None
            if name in used:
                hook.rows = hook.gather([own.get(name, []) for own in updates])
        self._key = key


# An update of a layer: A, B, c − 1 (None without DoRA), weight.
_Update = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, float]


def _by_layer(adapters: RequestLoras) -> dict[str, list[_Update]]:
    found: dict[str, list[_Update]] = {}
    for packed, factors in adapters:
        for index, name in enumerate(packed.layers):
            scale = packed.dora_scales[index] if packed.dora_scales else None
            weight = factors[index] if isinstance(factors, list) else factors
            update = (packed.downs[index], packed.ups[index], scale, weight)
            if weight:
                found.setdefault(name, []).append(update)
    return found


def _frozen(factors: Factors) -> float | tuple[float, ...]:
    return tuple(factors) if isinstance(factors, list) else factors


class _LayerHook:
    """Adds the updates of a batch to the output of one layer."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self.rows: _LayerRows | None = None
        self._layer: Any = layer
        layer.register_forward_hook(self)

    def gather(self, requests: Sequence[list[_Update]]) -> _LayerRows | None:
        """Return the buffers of the layer for a batch; None if none of the requests changes it."""
        if not any(requests):
            return None
        count, device = len(requests), self._layer.weight.device
        first_down, first_up, *_ = next(update for one in requests for update in one)
        out, _, *tail = first_up.shape
        widest = max(sum(down.shape[0] for down, *_ in one) for one in requests)
        rank = -(-widest // RANK_STEP) * RANK_STEP
        down = first_down.new_zeros(count, rank, *first_down.shape[1:], device=device)
        up = first_up.new_zeros(count, out, rank, *tail, device=device)
        has_dora = any(scale is not None for one in requests for *_, scale, _ in one)
        dora = first_up.new_zeros(count, out, device=device) if has_dora else None
        for index, updates in enumerate(requests):
            start = 0
            for own_down, own_up, scale, factor in updates:
                end = start + own_down.shape[0]
                down[index, start:end] = own_down
                up[index, :, start:end] = own_up
                if factor != 1.0:
                    up[index, :, start:end] *= factor
                if scale is not None and dora is not None:
                    dora[index] += scale.to(dora.device) * factor
                start = end
        return _LayerRows(down, up, dora)

    def __call__(self, _: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        if self.rows is None:
            return output
        if isinstance(self._layer, torch.nn.Conv2d):
            return self._add_convolved(inputs[0], output, self.rows)
        return self._add_projected(inputs[0], output, self.rows)

    def _add_projected(
        self, x: torch.Tensor, output: torch.Tensor, rows: _LayerRows
    ) -> torch.Tensor:
        count = rows.down.shape[0]
        tokens = x.reshape(count, -1, x.shape[-1])
        added = tokens @ rows.down.transpose(1, 2) @ rows.up.transpose(1, 2)
        added = added.reshape(output.shape)
        if rows.dora_scale is not None:
            own = output if self._layer.bias is None else output - self._layer.bias
            scaled = own.reshape(count, -1, own.shape[-1]) * rows.dora_scale[:, None]
            added = added + scaled.reshape(output.shape)
        return output + added

    def _add_convolved(
        self, x: torch.Tensor, output: torch.Tensor, rows: _LayerRows
    ) -> torch.Tensor:
        # One group of channels for each request: [rows of a request, n · channels, h, w].
        count, layer = rows.down.shape[0], self._layer
        grouped = x.unflatten(0, (count, -1)).transpose(0, 1).flatten(1, 2)
        down, up = rows.down.flatten(0, 1), rows.up.flatten(0, 1)
        narrow = F.conv2d(
            grouped, down, None, layer.stride, layer.padding, layer.dilation, groups=count
        )
        added = F.conv2d(narrow, up, groups=count)
        added = added.unflatten(1, (count, -1)).transpose(0, 1).flatten(0, 1)
        if rows.dora_scale is not None:
            own = output if layer.bias is None else output - layer.bias[:, None, None]
            scale = rows.dora_scale.repeat_interleave(len(own) // count, 0)
            added = added + own * scale[:, :, None, None]
        return output + added
