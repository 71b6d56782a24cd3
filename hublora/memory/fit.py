"""Chooses how the memory of a training is used, by what each way is known to cost in speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from hublora.memory.estimate import DenoiserCost, MemoryPlan
from hublora.memory.quantization import Quantization

# Time of a step over that of one without: published figures for transformers of 6 to 13 billion
# weights at 1024 pixels, on an H100 and an RTX 3090.
_SLOWER: dict[Quantization | None, float] = {None: 1.0, "int8": 1.3, "fp8": 1.3, "nf4": 1.5}
_CHECKPOINTING = 1.33  # a forward pass more, of three times its work
_SWAPPED = 0.15  # of the time, with every block swapped
_BATCH = 0.05  # of the time, one image at a time
_ENCODING = 1 << 30  # bytes beside the text encoders' weights while captions are encoded
_SWAP_STEPS = 8  # numbers of swapped blocks that are tried


def choose_plan(
    cost: DenoiserCost,
    text_bytes: Callable[[Quantization | None], int],
    limit: int,
    *,
    kinds: Sequence[Quantization | None],
    checkpointing: Sequence[bool],
    swapped: Sequence[int] | None,
    batch_sizes: Sequence[int],
    bytes_per_trained: int,
) -> MemoryPlan | None:
    """Return the fastest plan that fits, of equally fast ones the smallest; None if none fits.

    Args:
        cost: The denoiser.
        text_bytes: Kind of quantisation -> size of the text encoders, which are on the device
            before the denoiser is.
        limit: Memory in bytes.
        kinds: Kinds of quantisation to choose from.
        checkpointing: Whether to checkpoint, to choose from.
        swapped: Numbers of swapped blocks to choose from; None is any.
        batch_sizes: Batch sizes to choose from.
        bytes_per_trained: Size of a trained weight with its gradient and optimizer state.
    """
    count = len(cost.blocks)
    if swapped is None:
        swapped = sorted({count * one // _SWAP_STEPS for one in range(_SWAP_STEPS + 1)})
    usable = [kind for kind in kinds if text_bytes(kind) + _ENCODING <= limit]
    fitting = []
    for kind, number, again, batch in product(usable, swapped, checkpointing, batch_sizes):
        plan = MemoryPlan(kind, number, again, batch)
        needed = cost.step_bytes(plan, bytes_per_trained)
        if needed <= limit:
            fitting.append((_slowness(plan, count), needed, plan))
    return min(fitting, key=lambda one: one[:2])[2] if fitting else None


def _slowness(plan: MemoryPlan, blocks: int) -> float:
    factor = _SLOWER[plan.quantize] * (1 + _SWAPPED * plan.swapped / blocks)
    factor *= _CHECKPOINTING if plan.checkpointing else 1.0
    return factor * (1 + _BATCH / plan.batch_size)
