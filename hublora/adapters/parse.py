"""Reads the updates of layers from a file's tensors; a tensor that is not read is an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import LowRank
from hublora.adapters.alpha import StatedSettings, stated_settings
from hublora.adapters.size_limits import check_size, check_work
from hublora.adapters.tensor_names import (
    is_bundled,
    parse_name,
    repeated_layers,
    unknown_tensor,
    uses_peft_config,
)
from hublora.errors import AdapterError

if TYPE_CHECKING:
    import torch

# Kind of update, its required parts, its optional parts. The first row whose required parts are all
# there is the kind.
_METHODS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    ("lora", frozenset({"down", "up"}), frozenset({"mid"})),
    (
        "loha",
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        frozenset({"hada_t1", "hada_t2"}),
    ),
    *(
        ("lokr", frozenset(one) | frozenset(two), frozenset(core))
        for one in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for two, core in ((("lokr_w2",), ()), (("lokr_w2_a", "lokr_w2_b"), ("lokr_t2",)))
    ),
)
_SHARED = frozenset({"alpha", "magnitude", "dora_scale"})


def method_of(parts: Collection[str]) -> str | None:
    """Return "lora", "loha" or "lokr" for a layer's parts, None if they are incomplete."""
    for method, needed, optional in _METHODS:
        if needed <= set(parts) <= needed | optional | _SHARED:
            return method
    return None


def read_layers(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    config: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, LowRank]]:
    """Return the updates in a file by component and module, LoHa and LoKr as low rank.

    Args:
        tensors: Name -> tensor of the file.
        metadata: The file's `__metadata__`; `lora_adapter_metadata` states alphas.
        config: `adapter_config.json` of a PEFT folder; None without one.

    Raises:
        AdapterError: A tensor is of no supported kind of adapter, or parts of a layer are missing
            or have shapes that do not match.
    """
    found: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if is_bundled(name):
            continue
        parsed = parse_name(name)
        if parsed is None:
            raise unknown_tensor(name)
        component, module, part = parsed
        parts = found.setdefault((component, module), {})
        if part in parts:
            _check_equal({part: tensor}, {part: parts[part]}, module)
        parts[part] = tensor
    for flat, own in repeated_layers(found).items():
        _check_equal(found.pop(flat), found[own], own[1])
    if not uses_peft_config(tensors):
        config = None
    settings = stated_settings({component for component, _ in found}, metadata, config)
    check_work(
        (method, {part: tuple(tensor.shape) for part, tensor in parts.items()})
        for parts in found.values()
        if (method := method_of(parts)) is not None
    )
    layers: dict[str, dict[str, LowRank]] = {}
    for (component, module), parts in found.items():
        layer = _read_layer(module, parts, settings[component])
        layers.setdefault(component, {})[module] = layer
    _check_magnitudes(layers)
    return layers


def _check_equal(
    parts: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor], module: str
) -> None:
    same = parts.keys() == others.keys() and all(
        part.shape == others[name].shape and bool((part == others[name]).all())
        for name, part in parts.items()
    )
    if not same:
        raise AdapterError(
            f"The layer {module!r} is in the file twice, under two names and with different values."
        )


def _read_layer(
    module: str, parts: Mapping[str, torch.Tensor], settings: StatedSettings
) -> LowRank:
    method = method_of(parts)
    if method is None:
        raise AdapterError(
            f"The file has only some of the parts of the layer {module!r}: "
            f"{', '.join(sorted(parts))}."
        )
    shapes = {part: tuple(tensor.shape) for part, tensor in parts.items()}
    rank = file_rank(method, shapes)
    if "alpha" in parts:
        alpha = _number(parts["alpha"], module)
    elif method == "lokr" and rank is None:
        rank = settings.rank(module)  # LyCORIS does not scale it, PEFT by alpha / r
        alpha = settings.alpha(module, rank) if rank else 1.0
    else:
        alpha = settings.alpha(module, rank or 1)
    try:
        check_size(method, shapes, module)
        if method == "lora":
            layer = _low_rank(parts, alpha, module)
        else:
            layer = _product(method, parts, alpha / rank if rank else 1.0, module)
    except (RuntimeError, IndexError, ValueError) as error:
        if isinstance(error, AdapterError):
            raise
        raise _shape_error(module, parts) from error
    magnitude = _magnitude(parts, layer, module)
    return LowRank(layer.down, layer.up, layer.alpha, magnitude, layer.error)


def file_rank(method: str, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the rank that the alpha of a layer is divided by, from its parts' shapes.

    A LoKr of two full matrices has none (LyCORIS `lokr.make_module_from_state_dict`).
    """
    names = {
        "lora": ("down",),
        "loha": ("hada_w1_b",),
        "lokr": ("lokr_w2_b", "lokr_w1_b"),
    }[method]
    return next((shapes[name][0] for name in names if shapes.get(name)), None)


def _low_rank(parts: Mapping[str, torch.Tensor], alpha: float, module: str) -> LowRank:
    down, up = parts["down"], parts["up"]
    if "mid" in parts:
        from hublora.adapters.lycoris import tucker

        core = parts["mid"]
        flat_up, flat = tucker(core.float(), up.float(), down.float())
        in_channels = down.shape[1]
        down = flat.reshape(core.shape[0], in_channels, *core.shape[2:]).contiguous()
        up = flat_up.reshape(*flat_up.shape, 1, 1).contiguous()
    if not (down.ndim in (2, 4) and up.ndim in (2, 4) and 0 < down.shape[0] == up.shape[1]):
        raise _shape_error(module, parts)
    return LowRank(down, up, alpha)


def _product(method: str, parts: Mapping[str, torch.Tensor], scale: float, module: str) -> LowRank:
    from hublora.adapters import lycoris

    up, down, error = (lycoris.hadamard if method == "loha" else lycoris.kronecker)(parts)
    return LowRank(down, up, scale * down.shape[0], error=error)


def _magnitude(
    parts: Mapping[str, torch.Tensor], layer: LowRank, module: str
) -> torch.Tensor | None:
    """Return the DoRA magnitude as [out], None without one.

    PEFT's is [out], or [1, out, 1, 1] for a convolution; LyCORIS's is [out, 1, …], or in files of
    its first versions [1, in, …], one for each input, which pipelines do not have.
    """
    out = layer.up.shape[0]
    if "magnitude" in parts:
        magnitude = parts["magnitude"]
    elif "dora_scale" in parts:
        magnitude = parts["dora_scale"]
        if magnitude.ndim > 1 and magnitude.shape[0] == 1 != out:
            raise AdapterError(
                f"The DoRA scale of the layer {module!r} is one of its inputs, which pipelines "
                "cannot apply.",
                "Train it with LyCORIS's wd_on_out, or merge it into a base.",
            )
    else:
        return None
    if magnitude.numel() != out:
        raise AdapterError(
            f"The DoRA scale of the layer {module!r} has {magnitude.numel()} values for {out} "
            "outputs."
        )
    return magnitude.flatten()


def _check_magnitudes(layers: Mapping[str, Mapping[str, LowRank]]) -> None:
    for component, modules in layers.items():
        plain = [name for name, layer in modules.items() if layer.magnitude is None]
        if plain and len(plain) < len(modules):
            raise AdapterError(
                f"Of the layers of the {component}, some have a DoRA magnitude and others, such as "
                f"{plain[0]!r}, have none."
            )


def _shape_error(module: str, parts: Mapping[str, torch.Tensor]) -> AdapterError:
    shapes = " and ".join(
        f"{tuple(tensor.shape)}" for part, tensor in sorted(parts.items()) if part not in _SHARED
    )
    return AdapterError(
        f"The parts of the layer {module!r} have shapes that do not match: {shapes}."
    )


def _number(tensor: torch.Tensor, module: str) -> float:
    if tensor.numel() != 1:
        raise AdapterError(
            f"The alpha of the layer {module!r} must be one number, got shape "
            f"{tuple(tensor.shape)}."
        )
    return float(tensor)
