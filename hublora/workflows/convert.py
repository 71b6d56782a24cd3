"""Converts an adapter to a file or folder in another layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hublora.adapters.adapter import Adapter
from hublora.adapters.convert import (
    diffusers_names,
    kohya_metadata,
    kohya_names,
    kohya_tensors,
    with_kernels,
    with_layer_names,
    with_max_rank,
    with_stacked_layers,
)
from hublora.adapters.embeddings import read_bundled_tokens
from hublora.adapters.files import PEFT_CONFIG, PEFT_WEIGHTS, save_tensors
from hublora.adapters.layouts import kohya_layer, to_diffusers, to_peft
from hublora.adapters.metadata import metadata_of_facts
from hublora.adapters.stacked_layers import split_stacked
from hublora.errors import AdapterError, ConfigError
from hublora.filesystem import write_atomically
from hublora.hub.repo_layout import LOCK, WEIGHTS
from hublora.progress import Callback, Note, default_callback
from hublora.refs import AdapterRef, BaseRef
from hublora.resolution.adapter import download_adapter, load_downloaded
from hublora.resolution.base import resolve_base
from hublora.resolution.base_layers import read_base_layers

if TYPE_CHECKING:
    import torch

Layout = Literal["diffusers", "kohya", "peft"]
_LAYOUT_KEYS = ("lora_adapter_metadata", "format")  # metadata that describes the old layout


@dataclass(frozen=True)
class Conversion:
    """The files that a conversion wrote.

    Attributes:
        files: Paths of the weights, in order.
        layout: Layout of the files.
        methods: Methods of the updates: "lora", "dora", "loha", "lokr".
        error: Largest relative error of a layer's update; 0 is lossless.
    """

    files: tuple[Path, ...]
    layout: Layout
    methods: tuple[str, ...]
    error: float


def convert(
    ref: str,
    to: Layout,
    output: str | Path,
    *,
    base: str | None = None,
    base_revision: str | None = None,
    rank: int | None = None,
    callback: Callback = default_callback,
) -> Conversion:
    """Write an adapter in another layout, with the metadata of its file.

    LoRA and DoRA keep their tensors bit for bit. LoHa and LoKr do too in kohya's layout; in
    the other two they become low rank, and `Conversion.error` is the error.

    Args:
        ref: Ref of one adapter.
        to: "diffusers", "kohya" or "peft".
        output: A .safetensors file or a folder; for PEFT a folder, with one subfolder for each
            component if the adapter changes several.
        base: Hub id or folder of the base that it was trained on; only needed where flattened
            layer names are ambiguous.
        base_revision: Branch, tag or commit of `base`.
        rank: Largest rank; layers above it are truncated, which `Conversion.error` includes.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        ConfigError: `output` exists, or the ref has a weight.
        HubloraError: As `load`.
    """
    parsed = AdapterRef.parse(ref)
    if parsed.weight != 1.0:
        raise ConfigError(
            "The ref of a conversion must have no weight.", f"Leave out :{parsed.weight:g}."
        )
    resolved, path = download_adapter(parsed, callback)
    if path.name == LOCK:
        raise AdapterError(
            f"{parsed.location} is a composition, not one adapter.",
            f"Merge it into one first: hublora compose {ref} --merge cat -o DIR",
        )
    adapter = load_downloaded(resolved, path)
    _report_bundled(path, callback)
    if to == adapter.facts.layout == "kohya" and rank is None:
        return _conversion(_copy_kohya(adapter, path, Path(output)), to, adapter, 0.0)
    base_layers = (
        read_base_layers(resolve_base(BaseRef.parse(base, base_revision)), adapter.layers)
        if base
        else None
    )
    was_split = False
    if base_layers is not None:
        flattened = adapter.facts.layout == "kohya"
        split = split_stacked(adapter.layers, base_layers.shapes, flattened)
        was_split = any(split[part].keys() != own.keys() for part, own in adapter.layers.items())
        family = adapter.facts.family or base_layers.family
        adapter = replace(adapter, layers=split, facts=replace(adapter.facts, family=family))
    names = diffusers_names(adapter, base_layers.names if base_layers else None)
    if rank is not None:
        adapter = with_max_rank(adapter, rank)
    shapes = base_layers.shapes if base_layers else None
    if to == "kohya":
        stacked = with_stacked_layers(with_layer_names(adapter, names), shapes)
        if stacked is not None:
            adapter = stacked
            names = {
                component: {one: one for one in own} for component, own in stacked.layers.items()
            }
        flat = kohya_names(adapter, names, shapes)
        source = path if rank is None and stacked is None and not was_split else None
        file = _write_kohya(adapter, flat, source, Path(output))
        return _conversion((file,), to, adapter, 0.0 if source else adapter.error)
    write = _write_diffusers if to == "diffusers" else _write_peft
    named = with_kernels(with_layer_names(adapter, names), shapes)
    return _conversion(write(named, Path(output)), to, adapter, adapter.error)


def _report_bundled(path: Path, callback: Callback) -> None:
    """Report token embeddings in an adapter's file, which are not converted."""
    if tokens := read_bundled_tokens(path):
        named = ", ".join(token.name for token in tokens)
        callback(
            Note(f"{path.name} bundles token embeddings, which are not converted: {named}.", True)
        )


def _conversion(files: tuple[Path, ...], to: Layout, adapter: Adapter, error: float) -> Conversion:
    return Conversion(files, to, adapter.facts.methods, error)


def _write_diffusers(adapter: Adapter, output: Path) -> tuple[Path, ...]:
    file = _check_absent(output if output.suffix == ".safetensors" else output / WEIGHTS)
    tensors, metadata = to_diffusers(adapter)
    save_tensors(tensors, file, _metadata(adapter) | metadata)
    return (file,)


def _write_peft(adapter: Adapter, output: Path) -> tuple[Path, ...]:
    if output.suffix == ".safetensors":
        raise ConfigError("A PEFT adapter is a folder.", f"Use -o {output.with_suffix('')}")
    folders = {component: output / component for component in adapter.layers}
    if len(folders) == 1:
        folders = dict.fromkeys(folders, output)
    files = [_check_absent(folder / PEFT_WEIGHTS) for folder in folders.values()]
    for file in files:
        _check_absent(file.parent / PEFT_CONFIG)
    for file, component in zip(files, folders, strict=True):
        tensors, config = to_peft(replace(adapter, layers={component: adapter.layers[component]}))
        save_tensors(tensors, file, _metadata(adapter) | {"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True)
        write_atomically(file.parent / PEFT_CONFIG, text + "\n")
    return tuple(files)


def _copy_kohya(adapter: Adapter, source: Path, output: Path) -> tuple[Path, ...]:
    from hublora.adapters.tensor_file import read_tensors

    file = _kohya_file(adapter, output)
    save_tensors(read_tensors(source), file, kohya_metadata(adapter) | _metadata(adapter))
    return (file,)


def _write_kohya(
    adapter: Adapter, names: Mapping[str, Mapping[str, str]], source: Path | None, output: Path
) -> Path:
    """Write kohya's layout, with the tensors of the file `source`, or low rank without one."""
    from hublora.adapters.tensor_file import read_tensors

    file = _kohya_file(adapter, output)
    tensors: dict[str, torch.Tensor] = {}
    if source is not None:
        tensors = kohya_tensors(read_tensors(source), adapter, names)
    else:
        for component, modules in adapter.layers.items():
            for module, layer in modules.items():
                tensors |= kohya_layer(names[component][module], layer)
    save_tensors(tensors, file, kohya_metadata(adapter) | _metadata(adapter))
    return file


def _kohya_file(adapter: Adapter, output: Path) -> Path:
    title = re.sub(r"[^\w-]+", "-", adapter.facts.title or "").strip("-")[:80] or "adapter"
    return _check_absent(
        output if output.suffix == ".safetensors" else output / f"{title}.safetensors"
    )


def _metadata(adapter: Adapter) -> dict[str, str]:
    """Return the metadata of the file and facts of its card, without keys of the old layout."""
    own = {k: v for k, v in adapter.metadata.items() if k not in _LAYOUT_KEYS}
    return metadata_of_facts(adapter.facts) | own


def _check_absent(file: Path) -> Path:
    if os.path.lexists(file):
        raise ConfigError(f"{file} exists already.", "Choose another path with -o.")
    return file
