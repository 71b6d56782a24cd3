"""What a training step takes of a device's memory, from the configuration of a transformer alone.

The transformer is built on PyTorch's meta device, where tensors have shapes and no numbers, and its
forward pass is run there: what autograd keeps for the backward pass is counted, block by block. The
figures are computed, not measured; `_RUNTIME` and `_SLACK` stand for what the libraries take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hublora.families import DenoiserInputs, Family
from hublora.memory.block_swap import blocks_of
from hublora.memory.frozen_linear import linear_layers
from hublora.memory.quantization import BITS, Quantization

_RUNTIME = 600 << 20  # bytes of CUDA's context, its libraries and their workspaces
_SLACK = 1.08  # of everything else: fragments, gradients on their way through a block
_SAVED_BY_ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class MemoryPlan:
    """How the memory of a training is used.

    Attributes:
        quantize: Kind of quantisation; None for none.
        swapped: Blocks that are swapped, from 0.
        checkpointing: Whether gradient checkpointing recomputes activations.
        batch_size: Images of a batch, at least 1.
    """

    quantize: Quantization | None
    swapped: int
    checkpointing: bool
    batch_size: int


@dataclass(frozen=True)
class BlockCost:
    """One block, for one image; sizes in bytes.

    Attributes:
        linear: Number of weights in frozen linear layers, which are quantised and swapped.
        others: Size of its other frozen weights.
        kept: Size of what its backward pass needs.
        inputs: Size of its inputs, which checkpointing keeps in place of that.
    """

    linear: int
    others: int
    kept: int
    inputs: int


@dataclass(frozen=True)
class DenoiserCost:
    """A transformer with its adapter, for one image; sizes in bytes.

    Attributes:
        blocks: One cost for each block, in order.
        others: Size of the frozen weights outside blocks.
        kept: Size of what the backward pass needs of the rest.
        trained: Number of the adapter's weights.
        largest: Number of weights of its largest linear layer, of which a copy is dequantised.
        itemsize: Bytes of an unquantised weight.
    """

    blocks: tuple[BlockCost, ...]
    others: int
    kept: int
    trained: int
    largest: int
    itemsize: int

    def step_bytes(self, plan: MemoryPlan, bytes_per_trained: int) -> int:
        """Return the memory of a training step.

        Args:
            plan: How the memory is used.
            bytes_per_trained: Size of a trained weight with its gradient and optimizer state.
        """
        width = self.itemsize if plan.quantize is None else BITS[plan.quantize] / 8
        count = len(self.blocks)
        swapped = {number * count // plan.swapped for number in range(plan.swapped)}
        linear = [block.linear * width for block in self.blocks]
        here = sum(size for number, size in enumerate(linear) if number not in swapped)
        here += sum(sorted((linear[number] for number in swapped), reverse=True)[:2])
        frozen = here + self.others + sum(block.others for block in self.blocks)
        if plan.quantize is not None:
            frozen += self.largest * self.itemsize
        if plan.checkpointing:
            kept = sum(block.inputs for block in self.blocks)
            kept += max(block.kept for block in self.blocks)
        else:
            kept = sum(block.kept for block in self.blocks)
        activations = (kept + self.kept) * plan.batch_size
        trained = self.trained * bytes_per_trained
        return int((frozen + activations + trained) * _SLACK) + _RUNTIME

    def host_bytes(self, plan: MemoryPlan) -> int:
        """Return the size of the weights that wait in the CPU's memory."""
        width = self.itemsize if plan.quantize is None else BITS[plan.quantize] / 8
        count = len(self.blocks)
        swapped = {number * count // plan.swapped for number in range(plan.swapped)}
        return int(sum(self.blocks[number].linear * width for number in swapped))


def denoiser_cost(
    family: Family, pipe: Any, ranks: Mapping[str, int], size: tuple[int, int]
) -> DenoiserCost:
    """Return what a transformer takes, without any memory for its weights.

    Args:
        family: Family of the pipeline.
        pipe: A pipeline whose denoiser is on the meta device; other components may be missing. It
            has an adapter afterwards.
        ranks: Layer -> rank of the adapter.
        size: (h, w) of the images in pixels.
    """
    from torch.fx.experimental import _config

    model = getattr(pipe, family.denoiser)
    dtype = next(model.parameters()).dtype
    frozen = _frozen_costs(model)
    _add_adapter(model, ranks)
    counter = _Counter(model)
    inputs = _inputs(family, model, size, dtype)
    with _config.patch(meta_nonzero_assume_all_nonzero=True), counter, _FlashAttention():
        family.predict(pipe, model, inputs)
    blocks = tuple(
        BlockCost(linear, others, kept, of_inputs)
        for (linear, others), kept, of_inputs in zip(
            frozen, counter.kept, counter.inputs, strict=True
        )
    )
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    weights = sum(one.numel() for one in model.parameters()) - trained
    inside = sum(block.linear + block.others // dtype.itemsize for block in blocks)
    largest = max(layer.weight.numel() for _, layer in linear_layers(model))
    return DenoiserCost(
        blocks,
        (weights - inside) * dtype.itemsize,
        counter.outside,
        trained,
        largest,
        dtype.itemsize,
    )


def bare_pipeline(family: Family, denoiser: torch.nn.Module) -> Any:
    """Return a family's pipeline with a denoiser and no other component, for its helpers."""
    import inspect

    import diffusers

    kind = getattr(diffusers, family.pipeline_classes[0])
    parameters = inspect.signature(kind.__init__).parameters.values()
    required = [one.name for one in parameters if one.default is one.empty and one.name != "self"]
    return kind(**{**dict.fromkeys(required), family.denoiser: denoiser})


def model_bytes(model: torch.nn.Module, kind: Quantization | None, itemsize: int) -> int:
    """Return the size of a model's weights, quantised as `quantize_model` does.

    Args:
        model: A component of a pipeline, on any device.
        kind: Kind of quantisation; None for none.
        itemsize: Bytes of an unquantised weight.
    """
    total = sum(one.numel() for one in model.parameters())
    if kind is None:
        return total * itemsize
    linear = sum(layer for layer, _ in _frozen_costs(model))
    return int((total - linear) * itemsize + linear * BITS[kind] / 8)


def _frozen_costs(model: torch.nn.Module) -> list[tuple[int, int]]:
    """Return the number of weights in linear layers, and the size of the others, of each block."""
    costs = []
    for block in blocks_of(model):
        linear = sum(layer.weight.numel() for _, layer in linear_layers(block))
        every = list(block.parameters())
        width = every[0].element_size() if every else 0
        costs.append((linear, (sum(one.numel() for one in every) - linear) * width))
    return costs


def _add_adapter(model: Any, ranks: Mapping[str, int]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    with torch.device("meta"):
        inject_adapter_in_model(
            LoraConfig(target_modules=list(ranks), r=1, lora_alpha=1, rank_pattern=dict(ranks)),
            model,
            low_cpu_mem_usage=True,
        )


def _inputs(family: Any, model: Any, size: tuple[int, int], dtype: torch.dtype) -> DenoiserInputs:
    """Return inputs of one image on the meta device."""

    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(1, *shape, dtype=dtype, device="meta")

    shapes = family.conditioning_shapes(model.config)
    return DenoiserInputs(
        empty(*family.latent_shape(model.config, size)),
        empty(dtype=torch.float32),
        {
            # Masks are looked at: these say that no token is padding.
            name: torch.ones(1, *shape) if name.endswith("mask") else empty(*shape)
            for name, shape in shapes.items()
        },
        empty(6, dtype=torch.float32),
        empty(dtype=torch.float32),
    )


class _Counter(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps, in each block and outside of them."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(self._keep, lambda one: one)
        blocks = list(blocks_of(model))
        self.kept, self.inputs = [0] * len(blocks), [0] * len(blocks)
        self.outside = 0
        self._number: int | None = None
        # Storages are held, or another one could take the place of one that was counted.
        self._seen = {one.untyped_storage()._cdata: one for one in model.parameters()}
        self._given: dict[int, torch.Tensor] = {}
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(self._enter(number), with_kwargs=True)
            block.register_forward_hook(self._leave)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = tensor
            if self._number is None:
                self.outside += storage.nbytes()
            else:
                self.kept[self._number] += storage.nbytes()
        return tensor

    def _enter(self, number: int) -> Any:
        def enter(block: Any, args: Any, kwargs: Any) -> None:
            self._number = number
            tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
            new = {one.untyped_storage()._cdata: one for one in tensors}
            new = {key: one for key, one in new.items() if key not in self._given}
            self._given |= new
            self.inputs[number] = sum(one.nbytes for one in new.values())

        return enter

    def _leave(self, *_: Any) -> None:
        self._number = None


class _FlashAttention(TorchFunctionMode):
    """Attention that keeps queries, keys, values and its output, as fused kernels do; on the meta
    device PyTorch's own keeps all products."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == _SAVED_BY_ATTENTION:
            names = ("query", "key", "value")
            given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
            return _Attention.apply(*(given[name] for name in names))
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, result)
        return result
