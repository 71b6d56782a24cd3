"""DoRA as what it adds to a layer: Δ = W' − W, times the weight, beside whatever else is active.

DoRA rescales each row of W + s·BA to a learned length
(https://huggingface.co/papers/2402.09353, equation 5), so with c = magnitude / ‖W + s·BA‖, row by
row, what it adds is

    Δ = c ⊙ (W + s·BA) − W = (c ⊙ s·B) A + (c − 1) ⊙ W

a low-rank update and a scale of the layer's own output. PEFT's own layer multiplies s by the
weight, so that a weight of 0 does not turn it off, takes what other adapters added for a part of
W·x, and computes the row norms again at every call.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import LoraVariant

from hublora.adapters.adapter import LowRank


def row_factors(layer: LowRank, weight: torch.Tensor) -> torch.Tensor:
    """Return c, [out], in float32.

    Args:
        layer: An update with a magnitude.
        weight: Weight of the base's layer, [out, in] or [out, in, kh, kw].
    """
    assert layer.magnitude is not None, "a DoRA has one"
    product = layer.up.flatten(1).float() @ layer.down.flatten(1).float()
    adapted = weight.detach().flatten(1).float().cpu() + layer.scale * product
    lengths = adapted.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return layer.magnitude.flatten().float() / lengths


class DoraScale(torch.nn.Module):
    """Σ weight · (c − 1) of the active adapters of a layer, [out]; zeros at first."""

    scale: torch.Tensor

    def __init__(self, out: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        zeros = torch.zeros(out, dtype=dtype, device=device)
        self.register_buffer("scale", zeros, persistent=False)


class DoraVariant(LoraVariant):
    """What PEFT's linear and convolution layers compute for an adapter with a `DoraScale`."""

    @staticmethod
    def forward(
        module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        """Return `result` + BA·x + (c − 1) ⊙ W·x."""
        base = module.get_base_layer()
        own = result if module.active_adapters[0] == active_adapter else module.base_layer(x)
        if base.bias is not None:
            own = own - _by_row(base.bias, own.ndim, base.weight.ndim)
        added = module.lora_B[active_adapter](module.lora_A[active_adapter](x))
        scale = module.lora_magnitude_vector[active_adapter].scale
        scaling = module.scaling[active_adapter]
        change = added + _by_row(scale, own.ndim, base.weight.ndim) * own
        return result + change * scaling

    @staticmethod
    def merge_safe(module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with the adapter's update."""
        factor = _rows(module, active_adapter)
        return orig_weight * factor + module.get_delta_weight(active_adapter)

    @staticmethod
    def merge_unsafe(module: Any, active_adapter: str, orig_weight: torch.Tensor) -> None:
        """Add the adapter's update to the weight in place."""
        merged = DoraVariant.merge_safe(module, active_adapter, orig_weight.data)
        orig_weight.data = merged.to(orig_weight.dtype)

    @staticmethod
    def unmerge(module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        """Return the weight without the adapter's update."""
        delta = module.get_delta_weight(active_adapter)
        return (orig_weight - delta) / _rows(module, active_adapter)


def _rows(module: Any, name: str) -> torch.Tensor:
    """Return 1 + scaling · (c − 1), [out, 1, …], to multiply the weight with."""
    scale = module.lora_magnitude_vector[name].scale
    ones = (1,) * (module.get_base_layer().weight.ndim - 1)
    return 1 + module.scaling[name] * scale.reshape(-1, *ones)


def _by_row(numbers: torch.Tensor, dimensions: int, weight_dimensions: int) -> torch.Tensor:
    """Reshape one number for each output, [out], to broadcast over the layer's outputs."""
    return numbers.reshape(-1, 1, 1) if dimensions == weight_dimensions == 4 else numbers
