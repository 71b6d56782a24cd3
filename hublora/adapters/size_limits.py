"""Bounds on the memory and time of reading an adapter, computed from the shapes in its header.

A small file can state updates that no memory holds, or whose rewriting as low rank takes days; so
these are checked before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from hublora.errors import AdapterError

Shape = tuple[int, ...]
_MOST_WEIGHTS = 1 << 29  # of the update of one layer; the largest of FLUX.2 has 2**28.4
_MOST_FACTORS = 1 << 26  # of its low-rank form: 256 MB in float32
_MOST_WORK = 1 << 37  # multiplications, about, of one layer: a square of side 5,160
_MOST_WORK_OF_FILE = 1 << 42  # SDXL's 700 layers as LoHa of rank 32 take 2**41


def check_size(method: str, shapes: Mapping[str, tuple[int, ...]], module: str) -> None:
    """Refuse factors whose update would take more memory than that of any layer.

    Small factors can stand for updates, and for low-rank forms of them, that are larger than any
    memory; so this is computed from shapes before anything is allocated.

    Args:
        method: "lora", "loha" or "lokr".
        shapes: Part -> its shape.
        module: Name of the layer, for messages.

    Raises:
        AdapterError: The update, or its low-rank form, is too large.
    """
    if method == "lora" and "mid" not in shapes:
        return
    other = 1
    if method == "lora":
        out, rank = shapes["up"][0], shapes["mid"][0]
        inputs = shapes["down"][1] * math.prod(shapes["mid"][2:])
    elif method == "loha":
        (out, inputs), rank = _matrix(shapes, "hada_w1", "hada_t1")
        _, other = _matrix(shapes, "hada_w2", "hada_t2")
    else:
        (rows, columns), rank = _matrix(shapes, "lokr_w1", "")
        (more_rows, more_columns), other = _matrix(shapes, "lokr_w2", "lokr_t2")
        out, inputs = rows * more_rows, columns * more_columns
    if method != "lora":
        rank = min(rank * other, out, inputs)  # the low-rank form is truncated
    weights, factors = out * inputs, (out + inputs) * rank
    if weights > _MOST_WEIGHTS or factors > _MOST_FACTORS:
        raise AdapterError(
            f"The update of the layer {module!r} has {weights:,} weights, and {factors:,} in low "
            f"rank, more than any layer has ({_MOST_WEIGHTS:,} and {_MOST_FACTORS:,})."
        )
    if _work(method, shapes) > _MOST_WORK:
        raise AdapterError(
            f"The update of the layer {module!r} is too large to be rewritten as low rank: "
            f"{out:,} × {inputs:,} of rank {rank:,}.",
            "Merge it into the base's weights with the tool that trained it.",
        )


def _matrix(
    shapes: Mapping[str, tuple[int, ...]], name: str, core: str
) -> tuple[tuple[int, int], int]:
    """Return the shape of a factor when it is multiplied out, and the largest rank it can have."""
    if name in shapes:
        rows, columns = shapes[name][0], math.prod(shapes[name][1:])
        return (rows, columns), min(rows, columns)
    a, b = shapes[f"{name}_a"], shapes[f"{name}_b"]
    if core in shapes:  # a is transposed, and the core has the kernel
        rows, columns = a[1], b[1] * math.prod(shapes[core][2:])
    else:
        rows, columns = a[0], math.prod(b[1:])
    return (rows, columns), min(rows, columns, b[0])


def check_work(layers: Iterable[tuple[str, Mapping[str, Shape]]]) -> None:
    """Refuse a file whose layers together take too long to be rewritten as low rank.

    Args:
        layers: Method and part -> its shape of each layer.

    Raises:
        AdapterError: They do.
    """
    total = 0
    for method, shapes in layers:
        try:
            total += _work(method, shapes)
        except IndexError:
            continue  # a scalar where a matrix should be, which reading it says
    if total > _MOST_WORK_OF_FILE:
        raise AdapterError(
            f"The file's LoHa or LoKr updates would take about {total:.0e} multiplications to be "
            f"rewritten as low rank, more than the {_MOST_WORK_OF_FILE:.0e} of any known adapter.",
            "Merge it into the base's weights with the tool that trained it.",
        )


def _work(method: str, shapes: Mapping[str, Shape]) -> int:
    """Return about how many multiplications `hublora.adapters.lycoris` needs for a layer."""
    if method == "lora":
        return 0
    if method == "loha":
        (out, inputs), rank = _matrix(shapes, "hada_w1", "hada_t1")
        _, other = _matrix(shapes, "hada_w2", "hada_t2")
        return _decomposition(out, inputs, rank * other)
    return sum(
        _decomposition(*sides, rank)
        for sides, rank in (
            _matrix(shapes, "lokr_w1", ""),
            _matrix(shapes, "lokr_w2", "lokr_t2"),
        )
    )


def _decomposition(rows: int, columns: int, rank: int) -> int:
    """Return about how many multiplications a decomposition of a matrix of that rank needs."""
    rank = min(rank, rows, columns)
    return (rows + columns) * rank * rank
