"""Reads adapter files whole, and writes them atomically."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import Adapter
from hublora.adapters.embeddings import has_learned_tokens
from hublora.adapters.facts import facts_from_header, facts_of_tokens
from hublora.adapters.header import Header, read_file_header
from hublora.adapters.parse import read_layers
from hublora.adapters.tensor_names import (
    is_bundled,
    parse_name,
    unknown_tensor,
    uses_peft_config,
)
from hublora.errors import AdapterError
from hublora.filesystem import sha256_of, write_atomically

if TYPE_CHECKING:
    import torch

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PEFT_TYPES = ("LORA", "LOHA", "LOKR")


def read_peft_config(path: Path) -> dict[str, Any] | None:
    """Return the `adapter_config.json` of the PEFT folder that `path` lies in, None without one.

    Raises:
        AdapterError: As `parse_peft_config`.
    """
    beside = path.parent / PEFT_CONFIG
    return parse_peft_config(beside.read_bytes(), path.name) if beside.is_file() else None


def parse_peft_config(text: bytes, beside: str) -> dict[str, Any]:
    """Return the settings in an `adapter_config.json`.

    Args:
        text: Contents of the file.
        beside: Name of the adapter's file, for messages.

    Raises:
        AdapterError: It is no JSON object, or of a PEFT type that is not read.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"The {PEFT_CONFIG} beside {beside} is not valid JSON.") from error
    if not isinstance(config, dict):
        raise AdapterError(
            f"The {PEFT_CONFIG} beside {beside} must be a JSON object, got {type(config).__name__}."
        )
    kind = config.get("peft_type", "LORA")
    if kind not in _PEFT_TYPES:
        raise AdapterError(
            f"The peft_type of {beside} must be one of {', '.join(_PEFT_TYPES)}, got {kind!s:.40}."
        )
    return config


def load_adapter(path: Path, **more: Any) -> Adapter:
    """Read a whole adapter and check every tensor of it.

    A file of learned tokens is an adapter without layers; `read_tokens` reads the tokens.

    Args:
        path: A safetensors file; a PEFT folder's `adapter_config.json` beside it is read too.
        more: Further facts, as for `facts_from_header`.

    Raises:
        AdapterError: It is damaged, not an adapter, or has values that are not finite.
    """
    from safetensors import SafetensorError

    from hublora.adapters.tensor_file import read_tensors

    header = read_file_header(path)
    if has_learned_tokens(header):
        digest, size = sha256_of(path), path.stat().st_size
        facts = facts_of_tokens(header, sha256=digest, size=size, **more)
        return Adapter({}, facts, header.metadata)
    config = read_peft_config(path) if uses_peft_config(header.shapes) else None
    facts = facts_from_header(
        header,
        config,
        sha256=sha256_of(path),
        data_hash=_data_hash(path, header),
        size=path.stat().st_size,
        **more,
    )
    try:
        tensors = read_tensors(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise AdapterError(
            f"{path.name} is damaged: {str(error).splitlines()[0]}.", "Download it again."
        ) from error
    _check_finite(tensors, path.name)
    return Adapter(read_layers(tensors, header.metadata, config), facts, header.metadata)


def _data_hash(path: Path, header: Header) -> str:
    """Return the hash by which AUTOMATIC1111's web UI finds a file: the one in its metadata, else
    the SHA-256 of what follows the header."""
    stated = header.metadata.get("sshs_model_hash", "")
    return stated if _SHA256.fullmatch(stated) else sha256_of(path, header.header_bytes)


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; tensors that share memory are written each."""
    from safetensors.torch import save

    ready: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        one = tensor.detach().to("cpu").contiguous()
        ready[name] = one.clone() if one.untyped_storage().data_ptr() in seen else one
        seen.add(one.untyped_storage().data_ptr())
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
        if parse_name(key) is None and not is_bundled(key):
            raise unknown_tensor(key)
        if not tensor.is_floating_point() and not key.endswith(".alpha"):
            raise AdapterError(
                f"The tensor {key!r} of {name} must have a floating-point type, got "
                f"{str(tensor.dtype).removeprefix('torch.')}."
            )
        # The 8-bit types have no arithmetic of their own.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if not torch.isfinite(values).all():
            raise AdapterError(
                f"The tensor {key!r} of {name} has values that are not finite.",
                "Its training diverged: use an earlier checkpoint.",
            )
