"""Frozen linear layers: their weights in 8 or 4 bits, and nothing of them kept for the gradients.

PyTorch keeps the weight of a linear layer from its forward to its backward pass. Of a quantised
layer that is the dequantised copy, so that without gradient checkpointing all of them exist at
once; of a swapped layer it is the copy on the device. `keep_no_weights` makes layers read their
weight again in the backward pass instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from hublora.memory.quantization import Quantization

Fetch = Callable[[], None]  # brings a layer's weight onto the device
_MAX_INT8 = 127
_FLOAT8 = torch.float8_e4m3fn


class QuantizedLinear(torch.nn.Linear):
    """A frozen linear layer with its weight in 8 bits: W ≈ scale ⊙ Q, row by row.

    Args:
        layer: The layer, of which the bias is taken over.
        kind: "int8", or "fp8" for float8_e4m3fn.

    Attributes:
        weight: Q, [out, in]: int8, or the bits of float8 as uint8, so that nothing takes it for the
            type that the layer computes in.
        scale: Largest absolute value of each row over that of Q's type, [out], float32.
    """

    scale: torch.Tensor

    def __init__(self, layer: torch.nn.Linear, kind: Quantization) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        rows = layer.weight.detach().float()
        most = _MAX_INT8 if kind == "int8" else torch.finfo(_FLOAT8).max
        scale = rows.abs().amax(dim=1).div(most).clamp_min(torch.finfo(torch.float32).tiny)
        scaled = rows / scale[:, None]
        if kind == "int8":
            bits = scaled.round().to(torch.int8)
        else:
            bits = scaled.to(_FLOAT8).view(torch.uint8)
        self.weight = torch.nn.Parameter(bits, requires_grad=False)
        self.register_buffer("scale", scale)
        self.register_parameter("bias", layer.bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dtype = _compute_dtype(input)
        result = functional.linear(input.to(dtype), self.unscaled(dtype)) * self.scale.to(dtype)
        return result if self.bias is None else result + self.bias.to(dtype)

    def input_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the input, […, in], from that of the output, […, out]."""
        dtype = gradient.dtype
        return (gradient * self.scale.to(dtype)) @ self.unscaled(dtype)

    def unscaled(self, dtype: torch.dtype) -> torch.Tensor:
        """Return Q, [out, in], in a floating-point type."""
        bits = self.weight
        return (bits if bits.dtype == torch.int8 else bits.view(_FLOAT8)).to(dtype)


def quantize_model(model: torch.nn.Module, kind: Quantization, dtype: torch.dtype) -> None:
    """Quantise the linear layers of a model's blocks in place.

    What is not in a block, such as embeddings and the last projection, stays, and so does what the
    model itself keeps in float32.

    Args:
        model: A component of a pipeline, on the CPU, without adapters.
        kind: Kind of quantisation.
        dtype: Floating-point type to compute in.
    """
    for name, layer in list(_block_layers(model)):
        parent, _, child = name.rpartition(".")
        new = _nf4(layer, dtype) if kind == "nf4" else QuantizedLinear(layer, kind)
        setattr(model.get_submodule(parent), child, new)


def linear_layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    """Return name and layer of every linear layer; an adapter's own are not among them."""
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and ".lora_" not in name:
            yield name, layer


def keep_no_weights(layer: torch.nn.Linear, fetch: Fetch | None = None) -> None:
    """Make a frozen linear layer read its weight again for the gradients of its input; one that
    does so stays as it is.

    Args:
        layer: The layer; its numbers stay the same.
        fetch: Called before each use of the weight.
    """
    if not isinstance(layer.forward, partial):
        layer.forward = partial(_forward, layer, layer.forward, fetch)


def read_weight(layer: torch.nn.Module, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return the weight of a layer, dequantised if it is quantised.

    Args:
        layer: A linear layer or convolution.
        dtype: Type of the numbers; None is the layer's own, float32 for a quantised one.
    """
    weight: torch.Tensor = layer.weight
    if isinstance(layer, QuantizedLinear):
        weight = layer.unscaled(torch.float32) * layer.scale.float()[:, None]
    elif type(weight).__name__ == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, weight.quant_state)
    return weight if dtype is None else weight.to(dtype)


def weight_shape(layer: torch.nn.Module) -> tuple[int, ...]:
    """Return the shape of a layer's weight, [out, in] or [out, in, kh, kw]; a quantised weight is
    packed into another one."""
    if isinstance(layer, torch.nn.Linear):
        return (layer.out_features, layer.in_features)
    return tuple(layer.weight.shape)


def weight_bytes(model: torch.nn.Module) -> tuple[int, int]:
    """Return the bytes of a model's weights, and what they would be without quantisation."""
    tensors = (*model.parameters(), *model.buffers())
    now = sum(one.numel() * one.element_size() for one in tensors)
    width = compute_dtype(model).itemsize
    saved = 0
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and is_quantized(layer):
            own = (layer.weight, *layer.buffers(recurse=False))
            saved += layer.in_features * layer.out_features * width
            saved -= sum(one.numel() * one.element_size() for one in own)
    return now, now + saved


def compute_dtype(model: torch.nn.Module) -> torch.dtype:
    """Return the floating-point type that a model computes in."""
    types = (one.dtype for one in model.parameters())
    return next(one for one in types if one.is_floating_point)


def is_quantized(layer: torch.nn.Module) -> bool:
    """Tell whether a layer's weight is quantised."""
    return not layer.weight.dtype.is_floating_point


class _Frozen(torch.autograd.Function):
    """Calls a frozen linear layer and keeps nothing for the backward pass but the layer."""

    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, layer: torch.nn.Linear, call: Any, fetch: Fetch | None
    ) -> torch.Tensor:
        ctx.layer, ctx.fetch = layer, fetch
        result: torch.Tensor = call(input)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = gradients
        if ctx.fetch is not None:
            ctx.fetch()
        if isinstance(ctx.layer, QuantizedLinear):
            return ctx.layer.input_gradient(gradient), None, None, None
        return gradient @ read_weight(ctx.layer, gradient.dtype), None, None, None


def _forward(
    layer: torch.nn.Linear, call: Any, fetch: Fetch | None, input: torch.Tensor
) -> torch.Tensor:
    if fetch is not None:
        fetch()
    needs_gradient = torch.is_grad_enabled() and input.requires_grad
    result: torch.Tensor = (
        _Frozen.apply(input, layer, call, fetch) if needs_gradient else call(input)
    )
    return result


def _block_layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    """Return name and layer of the linear layers in lists of blocks."""
    lists = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList)
    )
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, layer in model.named_modules():
        in_block = type(layer) is torch.nn.Linear and name.startswith(lists)
        if in_block and kept.isdisjoint(name.split(".")):
            yield name, layer


def _nf4(layer: torch.nn.Linear, dtype: torch.dtype) -> torch.nn.Linear:
    """Return the layer in NF4 (https://huggingface.co/papers/2305.14314); bitsandbytes packs it as
    it is moved to the GPU."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    with torch.device("meta"):
        new: torch.nn.Linear = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
        )
    new.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    new.bias = layer.bias
    return new


def _compute_dtype(input: torch.Tensor) -> torch.dtype:
    device = input.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
