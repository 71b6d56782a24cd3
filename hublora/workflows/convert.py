"""Converts an adapter: from a ref to a file or folder in another layout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hublora.adapters.adapter import Adapter
from hublora.adapters.convert import (
    kohya_metadata,
    kohya_names,
    kohya_tensors,
    limited,
    own_names,
    renamed,
)
from hublora.adapters.files import PEFT_CONFIG, save_tensors
from hublora.adapters.layouts import kohya_layer, to_diffusers, to_peft
from hublora.errors import AdapterError, ConfigError
from hublora.filesystem import write_atomically
from hublora.hub.repo_layout import LOCK, WEIGHTS
from hublora.progress import Callback, no_callback
from hublora.refs import AdapterRef
from hublora.resolution.adapter import download_adapter, load_downloaded
from hublora.resolution.base_layers import read_base_layers

if TYPE_CHECKING:
    import torch

Layout = Literal["diffusers", "kohya", "peft"]
_LAYOUTS_OWN = ("lora_adapter_metadata", "format")  # what only the layout's own names make true
PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        files: The adapter's files, in order.
        layout: Which one they are in.
        methods: What the updates were: "lora", "dora", "loha", "lokr".
        error: The largest relative error of a layer; 0 is lossless.
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
    callback: Callback = no_callback,
) -> Conversion:
    """Write an adapter in another layout, with everything that its file said about itself.

    LoRA and DoRA keep their tensors bit for bit. LoHa and LoKr do too in kohya's layout; diffusers
    and PEFT get them as low rank, with the error told.

    Args:
        ref: One adapter.
        to: "diffusers", "kohya" or "peft".
        output: A .safetensors file or a folder; for PEFT a folder, with one folder in it for each
            model that the adapter changes if there are several.
        base: Hub id or folder of the base it was made for; only needed where flattened names do
            not tell the layers.
        base_revision: Branch, tag or commit of `base`.
        rank: The largest rank; layers above are cut, with the error told.
        callback: Is told what happens.

    Raises:
        HubloraError: As `load`, and ConfigError when `output` exists already.
    """
    parsed = AdapterRef.parse(ref)
    if parsed.weight != 1.0:
        raise ConfigError("A weight does not change a file.", f"Leave out :{parsed.weight:g}.")
    resolved, path = download_adapter(parsed, callback)
    if path.name == LOCK:
        raise AdapterError(
            f"{parsed.location} is a composition, not one adapter.",
            f"Make one of it: hublora compose {ref} --merge cat -o DIR",
        )
    adapter = load_downloaded(resolved, path)
    if to == adapter.facts.layout == "kohya" and rank is None:
        return _done(_copy_kohya(adapter, path, Path(output)), to, adapter, 0.0)
    outlined = read_base_layers(base, adapter.layers, base_revision) if base else None
    names = own_names(adapter, outlined.names if outlined else None)
    if rank is not None:
        adapter = limited(adapter, rank)
    if to == "kohya":
        flat = kohya_names(adapter, names, outlined.shapes.get("unet") if outlined else None)
        source = path if rank is None else None
        file = _write_kohya(adapter, flat, source, Path(output))
        return _done((file,), to, adapter, 0.0 if source else adapter.error)
    write = _write_diffusers if to == "diffusers" else _write_peft
    return _done(write(renamed(adapter, names), Path(output)), to, adapter, adapter.error)


def _done(files: tuple[Path, ...], to: Layout, adapter: Adapter, error: float) -> Conversion:
    return Conversion(files, to, adapter.facts.methods, error)


def _write_diffusers(adapter: Adapter, output: Path) -> tuple[Path, ...]:
    file = _free(output if output.suffix == ".safetensors" else output / WEIGHTS)
    tensors, metadata = to_diffusers(adapter)
    save_tensors(tensors, file, _kept(adapter) | metadata)
    return (file,)


def _write_peft(adapter: Adapter, output: Path) -> tuple[Path, ...]:
    if output.suffix == ".safetensors":
        raise ConfigError("A PEFT adapter is a folder.", f"Use -o {output.with_suffix('')}")
    folders = {component: output / component for component in adapter.layers}
    if len(folders) == 1:
        folders = dict.fromkeys(folders, output)
    files = [_free(folder / PEFT_WEIGHTS) for folder in folders.values()]
    for file, component in zip(files, folders, strict=True):
        tensors, config = to_peft(replace(adapter, layers={component: adapter.layers[component]}))
        save_tensors(tensors, file, _kept(adapter) | {"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True)
        write_atomically(file.parent / PEFT_CONFIG, text + "\n")
    return tuple(files)


def _copy_kohya(adapter: Adapter, source: Path, output: Path) -> tuple[Path, ...]:
    from safetensors.torch import load_file

    file = _kohya_file(adapter, output)
    save_tensors(load_file(source), file, kohya_metadata(adapter) | _kept(adapter))
    return (file,)


def _write_kohya(
    adapter: Adapter, names: Mapping[str, Mapping[str, str]], source: Path | None, output: Path
) -> Path:
    """Write kohya's layout, with the tensors of the file `source` or else with the low rank."""
    from safetensors.torch import load_file

    file = _kohya_file(adapter, output)
    tensors: dict[str, torch.Tensor] = {}
    if source is not None:
        tensors = kohya_tensors(load_file(source), adapter, names)
    else:
        for component, modules in adapter.layers.items():
            for module, layer in modules.items():
                tensors |= kohya_layer(names[component][module], layer)
    save_tensors(tensors, file, kohya_metadata(adapter) | _kept(adapter))
    return file


def _kohya_file(adapter: Adapter, output: Path) -> Path:
    title = re.sub(r"[^\w-]+", "-", adapter.facts.title or "").strip("-")[:80] or "adapter"
    return _free(output if output.suffix == ".safetensors" else output / f"{title}.safetensors")


def _kept(adapter: Adapter) -> dict[str, str]:
    """Return what the file says about itself, and what only its card says; not its old names."""
    facts = adapter.facts
    known = {
        "hublora.base_model": facts.base_model,
        "hublora.base_revision": facts.base_revision,
        "modelspec.title": facts.title,
        "modelspec.trigger_phrase": ", ".join(facts.trigger_words),
        "modelspec.license": facts.license,
    }
    stated = {key: value for key, value in known.items() if value}
    kept = {
        k: v for k, v in adapter.metadata.items() if k not in ("lora_adapter_metadata", "format")
    }
    return stated | kept


def _free(file: Path) -> Path:
    if file.exists():
        raise ConfigError(f"{file} is there already.", "Choose another place with -o.")
    return file
