"""Nested state of an optimizer as JSON, with its tensors apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def flatten_state(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Move the tensors in nested state into `tensors`; return JSON that names them."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"__tensor__": name}
    if isinstance(value, Mapping):
        return {
            "__items__": [
                [key, flatten_state(v, f"{name}.{key}", tensors)] for key, v in value.items()
            ]
        }
    if isinstance(value, list | tuple):
        return [flatten_state(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    return value


def unflatten_state(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the state that `flatten_state` took apart."""
    if isinstance(value, list):
        return [unflatten_state(item, tensors) for item in value]
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: unflatten_state(item, tensors) for key, item in value["__items__"]}
    return value


def json_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a state JSON can hold; the rest is made anew with the object."""
    return {key: value for key, value in state.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, int | float | str | bool)
