"""Layers that an original implementation stacks into one, such as the query, key and value of an
attention: split for diffusers, stacked for the tools that use the original.

    stacked     down [r, in]                  up [a + b + c, r]
    split       down [r, in] for each         up [a, r], [b, r], [c, r]
    stacked     down [3r, in] one above       up [a + b + c, 3r] block diagonal
    again       the other

Splitting is exact: a row of a weight has its own row of `up`, and of a DoRA's magnitudes. Stacking
is exact too; it takes the sum of the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from hublora.adapters.adapter import LowRank
from hublora.adapters.layer_specs import LayerSpec
from hublora.errors import AdapterError
from hublora.families.registry import is_swapped, native_layers

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
Update = TypeVar("Update", LowRank, LayerSpec)
Stacks = Mapping[str, tuple[str, ...]]


def split_stacked(
    layers: Mapping[str, Mapping[str, Update]],
    base: Mapping[str, Mapping[str, Shape]],
    flattened: bool,
) -> dict[str, dict[str, Update]]:
    """Return the updates with those of stacked layers split into the base model's own.

    What is not stacked in the file, or does not have the stack's number of rows, stays as it is.

    Args:
        layers: Component -> name in the file -> update, or its spec.
        base: Component -> layer -> shape of its weight, [out, in] or [out, in, kh, kw].
        flattened: Whether the file's names have `_` for `.`, as in kohya's layout.

    Raises:
        AdapterError: The file has a layer both stacked and split.
    """
    found: dict[str, dict[str, Update]] = {}
    for component, modules in layers.items():
        shapes = base.get(component, {})
        stacks = _stacks(tuple(shapes.items()), flattened)
        own: dict[str, Update] = {}
        for module, layer in modules.items():
            parts = stacks.get(module, ())
            rows = [shapes[part][0] for part in parts]
            split = {module: layer}
            if parts and sum(rows) == _out(layer):
                names = parts if "." in module or not flattened else map(_flat, parts)
                split = dict(zip(names, _split(layer, rows), strict=True))
            for name, part in split.items():
                if name in own:
                    raise AdapterError(f"The file has the layer {name!r} twice, stacked and split.")
                own[name] = _unswapped(part) if len(parts) == 1 else part
        found[component] = own
    return found


def stack(
    layers: Mapping[str, LowRank], base: Mapping[str, Shape] | None, stacks: Stacks
) -> dict[str, LowRank]:
    """Return the updates of a component under its original names, stacked.

    Args:
        layers: Diffusers' name of a layer -> update.
        base: Layer of the base model -> shape of its weight; None takes parts of a stack that the
            adapter does not change to be as large as those that it does.
        stacks: Original name -> diffusers layers, as `native_layers` returns them.

    Raises:
        AdapterError: The rows of a part are not known, or the adapter is a DoRA that changes only
            some of the parts.
    """
    found: dict[str, LowRank] = {}
    for native, parts in stacks.items():
        present = [layers[part] for part in parts if part in layers]
        if not present:
            continue
        if len(parts) == 1:
            renamed = native != parts[0]  # else the original is diffusers' own
            swapped = renamed and is_swapped(parts[0], (base or {}).get(parts[0]))
            found[native] = _swapped(present[0]) if swapped else present[0]
            continue
        rows = [_rows(part, layers, base, native) for part in parts]
        found[native] = _stacked([layers.get(part) for part in parts], rows, native)
    return found


def is_stacked(name: str, base: Mapping[str, Shape], flattened: bool) -> bool:
    """Tell whether a file's name is that of a layer that an original stacks, or swaps.

    Args:
        name: Name in the file.
        base: Layer of the base model -> shape of its weight.
        flattened: As for `split_stacked`.
    """
    return name in _stacks(tuple(base.items()), flattened)


@lru_cache(maxsize=16)  # of a base's components, which many adapters are put on
def _stacks(shapes: tuple[tuple[str, Shape], ...], flattened: bool) -> Stacks:
    """Return the names in files of stacked and of swapped layers; a flattened file may have names
    with dots too."""
    layers = dict(shapes)
    dotted = {
        native: parts
        for native, parts in native_layers(list(layers)).items()
        if all(part in layers for part in parts)
        if len(parts) > 1 or (native not in layers and is_swapped(parts[0], layers[parts[0]]))
    }
    return dotted | ({_flat(name): parts for name, parts in dotted.items()} if flattened else {})


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _out(layer: LowRank | LayerSpec) -> int:
    return layer.out if isinstance(layer, LayerSpec) else int(layer.up.shape[0])


def _split(layer: Any, rows: Sequence[int]) -> list[Any]:
    if isinstance(layer, LayerSpec):
        return [replace(layer, out=count) for count in rows]
    magnitudes: Sequence[torch.Tensor | None] = [None] * len(rows)
    if layer.magnitude is not None:
        magnitudes = layer.magnitude.split(list(rows))
    return [
        replace(layer, up=up.contiguous(), magnitude=magnitude)
        for up, magnitude in zip(layer.up.split(list(rows)), magnitudes, strict=True)
    ]


def _unswapped(layer: Update) -> Update:
    return layer if isinstance(layer, LayerSpec) else _swapped(layer)


def _swapped(layer: LowRank) -> LowRank:
    """Return the update with the halves of its rows in the other order."""
    half = layer.up.shape[0] // 2
    magnitude = layer.magnitude
    return replace(
        layer,
        up=layer.up.roll(half, 0),
        magnitude=None if magnitude is None else magnitude.roll(half, 0),
    )


def _rows(
    part: str, layers: Mapping[str, LowRank], base: Mapping[str, Shape] | None, native: str
) -> int:
    if part in layers:
        return int(layers[part].up.shape[0])
    if base is not None and part in base:
        return base[part][0]
    raise AdapterError(
        f"The original's layer {native!r} has rows of {part!r}, which the adapter does not change; "
        "how many is not known.",
        "Name the base model that the adapter was trained on: --base …",
    )


def _stacked(parts: Sequence[LowRank | None], rows: Sequence[int], native: str) -> LowRank:
    import torch

    present = [part for part in parts if part is not None]
    rank = sum(part.rank for part in present)
    scales = {part.scale for part in present}
    # One scale of all parts is that of the stack; several are taken into float32 weights.
    scale = scales.pop() if len(scales) == 1 else None
    dtype = present[0].up.dtype if scale is not None else torch.float32
    down = torch.cat([part.down.to(dtype) for part in present])
    up = down.new_zeros(sum(rows), rank)
    row = column = 0
    for part, count in zip(parts, rows, strict=True):
        if part is not None:
            own = part.up if scale is not None else part.up.to(dtype) * part.scale
            up[row : row + count, column : column + part.rank] = own
            column += part.rank
        row += count
    magnitudes = [part.magnitude for part in present if part.magnitude is not None]
    if magnitudes and len(magnitudes) < len(parts):
        raise AdapterError(
            f"The original's layer {native!r} stacks layers that this DoRA changes and others that "
            "it does not, which no DoRA of the stack can express.",
            "Convert it with --to diffusers.",
        )
    magnitude = torch.cat(magnitudes) if magnitudes else None
    return LowRank(down, up, (1.0 if scale is None else scale) * rank, magnitude)
