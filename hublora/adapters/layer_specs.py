"""Kind, rank and shape of an adapter's updates, from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hublora.adapters.parse import file_rank, method_of
from hublora.adapters.size_limits import check_size, check_work
from hublora.adapters.tensor_names import is_bundled, parse_name, repeated_layers
from hublora.errors import AdapterError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerSpec:
    """The update of one layer, without its weights.

    Attributes:
        method: "lora", "dora", "loha" or "lokr".
        rank: Rank of the file's factors; None for a LoKr of full matrices.
        out: Output features or channels of the layer.
        inputs: (in,), (in, kh, kw) or, flattened, (in·kh·kw,).
    """

    method: str
    rank: int | None
    out: int
    inputs: Shape


def read_layer_specs(shapes: Mapping[str, Shape]) -> dict[str, dict[str, LayerSpec]]:
    """Return component -> module -> layer; tensors that make no complete update are left out.

    Args:
        shapes: Tensor name -> shape, as a header gives them.
    """
    found: dict[str, dict[str, LayerSpec]] = {}
    for (component, module), layer in _layers(shapes).items():
        if one := _layer_spec(layer):
            found.setdefault(component, {})[module] = one
    return found


def find_load_problems(shapes: Mapping[str, Shape]) -> list[str]:
    """Return the reasons why loading would fail, as far as names and shapes show them.

    Args:
        shapes: Tensor name -> shape, as a header gives them.
    """
    unknown = [name for name in shapes if not is_bundled(name) and parse_name(name) is None]
    layers = _layers(shapes)
    incomplete = [module for (_, module), parts in layers.items() if not _is_complete(parts)]
    found = []
    if unknown:
        found.append(
            f"It will not load: {len(unknown)} of its tensors are not of an adapter that is "
            f"supported, such as {unknown[0]!r}."
        )
    if incomplete:
        found.append(
            f"It will not load: {len(incomplete)} of its {len(layers)} layers are incomplete, such "
            f"as {incomplete[0]!r}."
        )
    for (_, module), parts in layers.items():
        method = method_of(parts)
        try:
            if method is not None:
                check_size(method, parts, module)
        except AdapterError as error:
            found.append(f"It will not load: {error.message}")
        except IndexError:
            continue  # a scalar where a matrix should be: among the incomplete
    known = ((method, parts) for parts in layers.values() if (method := method_of(parts)))
    try:
        check_work(known)
    except AdapterError as error:
        found.append(f"It will not load: {error.message}")
    return found


def _layers(shapes: Mapping[str, Shape]) -> dict[tuple[str, str], dict[str, Shape]]:
    parts: dict[tuple[str, str], dict[str, Shape]] = {}
    for name, shape in shapes.items():
        if not is_bundled(name) and (parsed := parse_name(name)):
            component, module, part = parsed
            parts.setdefault((component, module), {})[part] = shape
    for flat in repeated_layers(parts):
        del parts[flat]
    return parts


def _is_complete(parts: Mapping[str, Shape]) -> bool:
    """Tell whether a layer has all its parts, of one rank above 0."""
    one = _layer_spec(parts)
    if one is None or not all(size for shape in parts.values() for size in shape):
        return False
    if {"down", "up"} <= set(parts):
        down, up = parts["down"], parts["up"]
        return len(down) in (2, 4) and len(up) in (2, 4) and down[0] == up[1]
    return True


def _layer_spec(parts: Mapping[str, Shape]) -> LayerSpec | None:
    method = method_of(parts)
    if method is None:
        return None
    sides = {"lora": _lora_shape, "loha": _hadamard_shape, "lokr": _kronecker_shape}[method]
    try:
        out, inputs = sides(parts)
    except IndexError:  # a scalar where a matrix should be
        return None
    weighted = {"magnitude", "dora_scale"} & set(parts)
    return LayerSpec("dora" if weighted else method, file_rank(method, parts), out, inputs)


def _lora_shape(parts: Mapping[str, Shape]) -> tuple[int, Shape]:
    kernel = parts["mid"][2:] if "mid" in parts else parts["down"][2:]
    return parts["up"][0], (parts["down"][1], *kernel)


def _hadamard_shape(parts: Mapping[str, Shape]) -> tuple[int, Shape]:
    a, b = parts["hada_w1_a"], parts["hada_w1_b"]
    if "hada_t1" in parts:
        return a[1], (b[1], *parts["hada_t1"][2:])
    return a[0], (b[1],)


def _kronecker_shape(parts: Mapping[str, Shape]) -> tuple[int, Shape]:
    rows, columns = _kronecker_factor(parts, "lokr_w1")
    more_rows, (more_columns, *kernel) = _kronecker_factor(parts, "lokr_w2")
    return rows * more_rows, (columns[0] * more_columns, *kernel)


def _kronecker_factor(parts: Mapping[str, Shape], name: str) -> tuple[int, Shape]:
    if name in parts:
        return parts[name][0], (parts[name][1], *parts[name][2:])
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    core = parts.get("lokr_t2") if name == "lokr_w2" else None
    return (a[1], (b[1], *core[2:])) if core else (a[0], (b[1],))
