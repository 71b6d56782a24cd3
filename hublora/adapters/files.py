"""Adapter files: facts from the header, whole adapters, and writing that survives a power cut."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.formats import (
    COMPONENTS,
    detect_layout,
    parse_name,
    read_layers,
    stated_config,
)
from hublora.adapters.header import Header, read_file_header
from hublora.errors import AdapterError
from hublora.filesystem import sha256_of, write_atomically

if TYPE_CHECKING:
    import torch

PEFT_CONFIG = "adapter_config.json"


def facts_from_header(
    header: Header, config: Mapping[str, Any] | None = None, **more: Any
) -> AdapterFacts:
    """Return what a header alone says about an adapter.

    Args:
        header: The parsed header.
        config: `adapter_config.json` of a PEFT folder, if there is one.
        more: Facts known from elsewhere (card, ref, size); they win over the header.

    Raises:
        AdapterError: The tensors are those of no adapter.
    """
    layout = detect_layout(header.shapes)
    ranks: set[int] = set()
    components: set[str] = set()
    targets: set[str] = set()
    for name, shape in header.shapes.items():
        parsed = parse_name(name)
        if parsed is None:
            continue
        component, module, half = parsed
        components.add(component)
        if half == "down" and shape:
            ranks.add(shape[0])
            targets.add(_target(module, layout))
    facts = AdapterFacts(
        components=tuple(sorted(components)),
        ranks=tuple(sorted(ranks)),
        alphas=_alphas(header, config),
        targets=tuple(sorted(targets)),
        parameters=sum(_count(shape) for shape in header.shapes.values()),
        dtype=next(iter(sorted(set(header.dtypes.values()))), None),
        layout=layout,
    )
    known = {"base_model": _text((config or {}).get("base_model_name_or_path"))}
    known |= {key: value for key, value in _facts_from_metadata(header.metadata).items() if value}
    known |= {key: value for key, value in more.items() if value}
    return AdapterFacts(**{**facts.__dict__, **known})


def read_peft_config(path: Path) -> dict[str, Any] | None:
    """Return the `adapter_config.json` of the PEFT folder that `path` lies in, None without one.

    Raises:
        AdapterError: It does not parse, or asks for something that is not LoRA.
    """
    beside = path.parent / PEFT_CONFIG
    if not beside.is_file():
        return None
    try:
        config = json.loads(beside.read_bytes())
    except ValueError as error:
        raise AdapterError(f"The {PEFT_CONFIG} beside {path.name} does not parse.") from error
    if not isinstance(config, dict):
        raise AdapterError(f"The {PEFT_CONFIG} beside {path.name} holds no settings.")
    kind = config.get("peft_type", "LORA")
    if kind != "LORA" or config.get("use_dora"):
        raise AdapterError(
            f"{path.name} is a {'DoRA' if kind == 'LORA' else kind} adapter; hublora reads LoRA."
        )
    return config


def load_adapter(path: Path, **more: Any) -> Adapter:
    """Read a whole adapter and check every tensor of it.

    Args:
        path: A safetensors file; a PEFT folder's `adapter_config.json` beside it is read too.
        more: Facts known from elsewhere, as in `facts_from_header`.

    Raises:
        AdapterError: It is broken, not an adapter, or holds values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_file_header(path)
    config = read_peft_config(path)
    facts = facts_from_header(
        header, config, sha256=sha256_of(path), size=path.stat().st_size, **more
    )
    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise AdapterError(
            f"{path.name} is damaged: {str(error).splitlines()[0]}.", "Download it again."
        ) from error
    _check_finite(tensors, path.name)
    return Adapter(read_layers(tensors, header.metadata, config), facts, header.metadata)


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; `path` is at any time the old file or the whole new one."""
    from safetensors.torch import save

    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_atomically(path, _in_order(save(ready, dict(metadata or {}))))


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted: the library writes it in an order that
    differs from process to process, and the same training is to give the same bytes."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _check_finite(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    import torch

    for key, tensor in tensors.items():
        # The 8-bit types have no arithmetic of their own.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if not torch.isfinite(values).all():
            raise AdapterError(
                f"{name} holds values that are not finite (in {key}).",
                "Its training diverged: use an earlier checkpoint.",
            )


def _facts_from_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read hublora's own keys, then modelspec's, then kohya's."""
    trigger = metadata.get("hublora.trigger_words") or metadata.get("modelspec.trigger_phrase")
    return {
        "base_model": metadata.get("hublora.base_model"),
        "base_revision": metadata.get("hublora.base_revision"),
        "family": metadata.get("hublora.family"),
        "license": metadata.get("modelspec.license"),
        "title": metadata.get("modelspec.title"),
        "trigger_words": tuple(w.strip() for w in trigger.split(",") if w.strip())
        if trigger
        else (),
    }


def _alphas(header: Header, config: Mapping[str, Any] | None) -> tuple[float, ...]:
    """Return the alphas that are stated outside the tensors; kohya's are tensors themselves."""
    configs = [stated_config(component, header.metadata) for component in COMPONENTS]
    if "lora_adapter_metadata" not in header.metadata:
        configs = [dict(config or {})]
    found: list[Any] = [header.metadata.get("ss_network_alpha")]
    for one in configs:
        patterns = (one or {}).get("alpha_pattern")
        found += [(one or {}).get("lora_alpha")]
        found += patterns.values() if isinstance(patterns, dict) else []
    return tuple(sorted({number for value in found if (number := _finite(value)) is not None}))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _target(module: str, layout: str) -> str:
    if layout == "kohya":  # the last separator is lost: name the part after the block's number
        return module.rsplit("_attn", 1)[-1].split("_", 1)[-1]
    parts = module.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
