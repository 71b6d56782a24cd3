"""DoRA layers whose weight counts as it does for LoRA: Δ = W' − W, times the weight.

DoRA brings each row of W + s·BA to a length of its own (https://huggingface.co/papers/2402.09353,
equation 5), so its update is

    Δ = c ⊙ (W + s·BA) − W,    c = magnitude / ‖W + s·BA‖ row by row

PEFT's own layer applies that too, but it takes a weight into s, so that a weight of 0 does not turn
it off, takes what other adapters added for a part of W·x, and computes the lengths again at every
call. Here c is computed once, and w·Δ is added whatever else is active.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.dora import DoraConv2dLayer, DoraLinearLayer


class _Weighted:
    """What both kinds of layer share.

    Attributes:
        factor: c, one for each output.
        scale: s, alpha / rank.
    """

    factor: torch.Tensor
    scale: float

    def settle(self, magnitude: torch.nn.Parameter, change: torch.Tensor, base: Any) -> None:
        """Compute c for the base's weight.

        Args:
            magnitude: PEFT's, [out] or [1, out, 1, 1].
            change: s·BA, in the shape of the weight.
            base: The layer below.
        """
        self.weight = magnitude
        adapted = base.weight.detach().float() + change.to(base.weight.device)
        lengths = adapted.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        factor = magnitude.detach().flatten().float() / lengths
        factor = factor.reshape(_row_shape(base.weight)).to(base.weight.dtype)
        self.register_buffer("factor", factor, persistent=False)  # type: ignore[attr-defined]

    def forward(
        self,
        x: torch.Tensor,
        *,
        lora_A: Any,
        lora_B: Any,
        scaling: float,
        base_layer: Any,
        **_: Any,
    ) -> torch.Tensor:
        """Return w·Δx; PEFT hands w over inside of `scaling`, which is w·s."""
        unadapted = base_layer(x)
        if base_layer.bias is not None:
            unadapted = unadapted - base_layer.bias.reshape(_row_shape(base_layer.weight))
        adapted = unadapted + self.scale * lora_B(lora_A(x))
        weight = scaling / self.scale if self.scale else 1.0
        return weight * (self.factor * adapted - unadapted)


class WeightedDoraLinear(_Weighted, DoraLinearLayer):
    """For a linear layer."""


class WeightedDoraConv2d(_Weighted, DoraConv2dLayer):
    """For a convolution."""


def _row_shape(weight: torch.Tensor) -> tuple[int, ...]:
    """Return the shape that puts one number for each output beside a layer's outputs."""
    return (1, -1, 1, 1) if weight.ndim == 4 else (-1,)


def settle_dora(placed: Any, name: str) -> None:
    """Put the layer of this module in the place of PEFT's, for the adapter `name`.

    Args:
        placed: PEFT's layer, with the adapter on it.
        name: Of the adapter.
    """
    base = placed.get_base_layer()
    scale = float(placed.scaling[name])
    own = (WeightedDoraConv2d if base.weight.ndim == 4 else WeightedDoraLinear)(False)
    own.scale = scale
    down, up = placed.lora_A[name].weight.detach(), placed.lora_B[name].weight.detach()
    product = up.flatten(1).float() @ down.flatten(1).float()
    change = scale * product.reshape(base.weight.shape)
    own.settle(placed.lora_magnitude_vector[name].weight, change, base)
    placed.lora_magnitude_vector[name] = own
