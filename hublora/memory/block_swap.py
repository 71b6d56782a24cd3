"""Blocks of a frozen transformer that wait in the CPU's memory until they are computed.

Each swapped block's linear weights have one copy for good on the CPU. The device has those of the
block that is computed, and those of the next one, which are copied while the other computes. Since
frozen weights never change, nothing is copied back. Adapters, norms, biases, the optimizer and
activations stay on the device.

diffusers' group offloading moves adapters with their block, and prefetches in the order of the
forward pass only (https://github.com/huggingface/diffusers/pull/10503). Here forward pass,
recomputation and backward pass all ask for a block by its number, and the direction of the numbers
says which one is next.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from hublora.errors import ConfigError
from hublora.memory.frozen_linear import keep_no_weights, linear_layers


class BlockSwap:
    """Swaps the frozen linear weights of some of a model's blocks.

    Args:
        model: A transformer on the CPU, with or without adapters.
        count: Number of blocks that are swapped, spread evenly so that copies have the most time;
            None swaps all.
        device: Device that computes.

    Attributes:
        away: Weight -> its data while its block is not on the device.

    Raises:
        ConfigError: The model has no blocks, or fewer than `count`.
    """

    def __init__(self, model: torch.nn.Module, count: int | None, device: torch.device) -> None:
        self._model, self._device = model, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        layers = _swappable(model)
        _check_count(count, len(layers))
        count = len(layers) if count is None else count
        chosen = [layers[number * len(layers) // count] for number in range(count)]
        self.away: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._blocks: list[list[torch.nn.Parameter]] = []
        self._here: set[int] = set()
        self._last = -1
        for number, block in enumerate(chosen):
            for layer in block:
                self.away[layer.weight] = self._host_copy(layer)
                keep_no_weights(layer, partial(self.fetch, number))
                layer.computes_on = device
            self._blocks.append([layer.weight for layer in block])
        self._host = dict(self.away)
        self.move(device)

    @property
    def host_bytes(self) -> int:
        """Bytes of the weights that wait on the CPU."""
        return sum(one.nbytes for one in self._host.values())

    @property
    def device_bytes(self) -> int:
        """Bytes of swapped weights that are on the device now."""
        return sum(weight.nbytes for number in self._here for weight in self._blocks[number])

    def fetch(self, number: int) -> None:
        """Have a block's weights on the device, and begin to copy those of the next one.

        Args:
            number: Number of the block among the swapped ones, from 0.
        """
        if number == self._last:
            return
        following = self._following(number)
        self._release(self._here - {number, following})
        self._bring(number)
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        self._last = number
        if following is not None:
            self._bring(following)

    def move(self, device: torch.device | str) -> None:
        """Move everything of the model but the swapped weights, which wait on the CPU."""
        self._release(set(self._here))
        self._last = -1
        for weight in self._host:
            weight.data = weight.data.new_empty(0)
        self._model.to(device)
        for weight, data in self.away.items():
            weight.data = data

    def _host_copy(self, layer: torch.nn.Linear) -> torch.Tensor:
        if type(layer.weight).__name__ == "Params4bit":
            layer.to(self._device)  # which packs it
        data: torch.Tensor = layer.weight.data.cpu()
        return data if self._stream is None else data.pin_memory()

    def _following(self, number: int) -> int | None:
        """Return the block that is computed after one: the neighbour in the direction of the pass;
        at an end the pass back, or without gradients the first block again."""
        step = 1 if number > self._last else -1
        following = number + step
        if not 0 <= following < len(self._blocks):
            again = step > 0 and not torch.is_grad_enabled()
            following = 0 if again else number - step
        is_other = following != number and 0 <= following < len(self._blocks)
        return following if is_other else None

    def _bring(self, number: int) -> None:
        if number in self._here:
            return
        if self._stream is None:
            self._copy(number)
        else:
            # What was released may still be read by kernels that are queued.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                self._copy(number)
        self._here.add(number)

    def _copy(self, number: int) -> None:
        for weight in self._blocks[number]:
            host = self._host[weight]
            copy = torch.empty_like(host, device=self._device)
            weight.data = copy.copy_(host, non_blocking=True)

    def _release(self, numbers: set[int]) -> None:
        for number in numbers:
            for weight in self._blocks[number]:
                weight.data = self.away[weight]
        self._here -= numbers


def blocks_of(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Return the blocks of a transformer: the members of its outermost lists, in order."""
    for child in model.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from child
        else:
            yield from blocks_of(child)


def check_swap(model: torch.nn.Module, count: int | None) -> None:
    """Check that a model has the blocks to swap.

    Args:
        model: A frozen transformer.
        count: Number of blocks; None is all.

    Raises:
        ConfigError: It has fewer, or none.
    """
    _check_count(count, len(_swappable(model)))


def _swappable(model: torch.nn.Module) -> list[list[torch.nn.Linear]]:
    """Return the linear layers of each block that has any."""
    blocks = ([layer for _, layer in linear_layers(block)] for block in blocks_of(model))
    return [block for block in blocks if block]


def _check_count(count: int | None, blocks: int) -> None:
    if not 0 < (count or 1) <= blocks:
        raise ConfigError(
            f"--offload must swap at most the {blocks} blocks of this base, got {count}."
            if blocks
            else "This base has no blocks to swap.",
            "Use --offload blocks, which swaps all of them." if blocks else "Leave --offload out.",
        )
