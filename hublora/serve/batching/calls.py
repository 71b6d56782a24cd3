"""Calls of a denoiser from several pipelines, joined into one call and cut apart again.

A call is joined with others of equal signature: the same arguments, shapes and plain values. What
has a sample's row in its first dimension is joined there; a tensor without one (the position ids of
FLUX.1) is shared, and must be equal. A number without dimensions, such as the timestep that
U-Nets are given, becomes one for each row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class DenoiserCall:
    """One call of a denoiser, by a pipeline of one request.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        rows: Samples in the call: 2 where guidance doubles the batch.
        signature: Calls with equal ones can be joined.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    rows: int = field(init=False)
    signature: Hashable = field(init=False)

    def __post_init__(self) -> None:
        everything = [*self.args, dict(self.kwargs)]
        rows = _rows(everything)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "signature", (len(self.args), rows, _signature(everything, rows)))


def join(calls: Sequence[DenoiserCall]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of one call that stands for all of them, in order.

    Args:
        calls: Calls of equal signature.
    """
    rows = calls[0].rows
    args = [_join(values, rows) for values in zip(*(call.args for call in calls), strict=True)]
    names = calls[0].kwargs
    return args, {name: _join([call.kwargs[name] for call in calls], rows) for name in names}


def split(result: Any, count: int, rows: int) -> list[Any]:
    """Return the part of each call in the result of a joined one.

    Args:
        result: A tensor [count · rows, …], or a list of as many; in a tuple or an output class of
            diffusers or not.
        count: Number of calls.
        rows: Rows of each.
    """
    if isinstance(result, torch.Tensor):
        return list(result.split(rows))
    if isinstance(result, Mapping):  # diffusers' BaseOutput
        fields = {name: split(value, count, rows) for name, value in result.items()}
        return [
            type(result)(**{name: part[index] for name, part in fields.items()})
            for index in range(count)
        ]
    if isinstance(result, list) and len(result) == count * rows:
        return [result[start : start + rows] for start in range(0, len(result), rows)]
    parts = [split(value, count, rows) for value in result]
    return [tuple(part[index] for part in parts) for index in range(count)]


def _rows(values: Sequence[Any]) -> int:
    """Return the number of samples: the first dimension of the first latents."""
    for value in values:
        if isinstance(value, torch.Tensor) and value.ndim > 1:
            return value.shape[0]
        if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
            return len(value)
        if isinstance(value, Mapping):
            return _rows(list(value.values()))
    raise TypeError("the denoiser is called without latents")


def _signature(value: Any, rows: int) -> Hashable:
    if isinstance(value, torch.Tensor):
        kind = (str(value.dtype), str(value.device))
        if value.ndim == 0:
            return ("number", *kind)
        if value.shape[0] == rows:
            return ("rows", tuple(value.shape[1:]), *kind)
        return ("shared", tuple(value.shape), *kind, _digest(value))
    if isinstance(value, Mapping):
        return tuple(
            (name, _signature(value[name], rows), _places(name, value[name], rows))
            for name in sorted(value)
        )
    if isinstance(value, list) and len(value) == rows:
        return ("samples", *(_of_sample(one, rows) for one in value))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(_signature(one, rows) for one in value))
    return value if isinstance(value, Hashable) else repr(value)


def _of_sample(value: Any, rows: int) -> Hashable:
    """Return the signature of what one sample has in a list of them, whose numbers are its own."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), str(value.dtype), str(value.device))
    return _signature(value, rows)


def _places(name: str, value: Any, rows: int) -> str | None:
    """Return what identifies ids of positions, of which a model may read the first row alone: two
    sizes of images can have equally many. SDXL's `time_ids` are sizes, one row for each sample."""
    if not (isinstance(value, torch.Tensor) and name.endswith("_ids") and name != "time_ids"):
        return None
    by_row = value.ndim > 0 and value.shape[0] == rows  # else they are compared as shared ones
    return _digest(value) if by_row else None


def _digest(value: torch.Tensor) -> str:
    # Ids of positions: a few kilobytes. The shape alone would join what is at other places.
    content = value.detach().to("cpu", torch.float64).contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _join(values: Sequence[Any], rows: int) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        if first.ndim == 0:
            return torch.stack(list(values)).repeat_interleave(rows)
        return torch.cat(list(values)) if first.shape[0] == rows else first
    if isinstance(first, Mapping):
        return {name: _join([value[name] for value in values], rows) for name in first}
    if isinstance(first, list) and len(first) == rows:
        return [one for value in values for one in value]
    return first
