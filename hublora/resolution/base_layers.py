"""Names and shapes of a base's layers, from the headers of its weights alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hublora.adapters.header import Header, ReadRange, read_file_header, read_header
from hublora.adapters.layer_names import file_names, file_prefix
from hublora.errors import AdapterError, NotFoundError
from hublora.families.registry import COMPONENTS, FAMILIES
from hublora.hub.client import is_offline
from hublora.hub.download import download, range_reader
from hublora.resolution.base import ResolvedBase

_INDEX = "model_index.json"
_INDEX_BYTES = 100_000  # more than any has
_STEMS = ("diffusion_pytorch_model", "model")


@dataclass(frozen=True)
class BaseLayers:
    """The layers of a base that can be adapted, without their weights.

    Attributes:
        name: Hub id, or the folder's name.
        commit: 40 hexadecimal digits; None for a folder.
        family: Name in the families registry; None if its pipeline class is in none.
        card: Front matter of its card.
        shapes: Component -> layer -> shape of its weight.
    """

    name: str
    commit: str | None
    family: str | None
    card: Mapping[str, Any]
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]] = field(repr=False)

    @property
    def names(self) -> dict[str, dict[str, str]]:
        """Component -> flattened name in kohya files -> layer."""
        return {component: file_names(list(layers)) for component, layers in self.shapes.items()}

    @property
    def label(self) -> str:
        """The name in messages, with the first digits of the commit."""
        return f"{self.name}@{self.commit[:8]}" if self.commit else self.name


def read_base_layers(base: ResolvedBase, components: Collection[str]) -> BaseLayers:
    """Read the layers of a base; of its weights only headers are downloaded.

    Args:
        base: The base.
        components: Components to read; others cost no request.

    Raises:
        NotFoundError: Its model_index.json does not parse.
        AdapterError: A header is broken.
    """
    if base.single is not None:
        return _layers_of_single_file(base, components)
    try:
        kind = str(json.loads(_read(base, _INDEX)).get("_class_name"))
    except (ValueError, AttributeError) as error:
        raise NotFoundError(f"The {_INDEX} of {base.ref.name} does not parse.") from error
    family = next((f.name for f in FAMILIES.values() if kind in f.pipeline_classes), None)
    shapes = {}
    for component in COMPONENTS:
        if component in components and (files := _weights(component, base.files)):
            shapes[component] = _layers([_header(base, file) for file in files])
    return BaseLayers(base.ref.name, base.commit, family, base.card, shapes)


def empty_components(base: ResolvedBase, names: Collection[str]) -> dict[str, Any]:
    """Return components of a base on the meta device; of its files only configs are downloaded.

    Args:
        base: The base.
        names: Components to make; those that it lacks are left out.

    Raises:
        AdapterError: A config names code, or what its class cannot be made of.
    """
    from importlib import import_module

    from hublora.resolution.model_folder import check_model_folder
    from hublora.resolution.parameter_count import empty_model

    parts = base.components or base
    index = json.loads(_read(parts, _INDEX))
    found = {}
    for name in names:
        file = f"{name}/config.json"
        if file in parts.files:
            folder = _local_copy(parts, file).parent
            label = f"{parts.ref.name}/{name}"
            check_model_folder(folder, label, weights=False)
            library, kind = index[name]
            if library not in ("diffusers", "transformers"):
                raise AdapterError(f"{label} is of the library {library!r}.", "Use another base.")
            found[name] = empty_model(getattr(import_module(library), kind), folder, label)
    return found


def _layers_of_single_file(base: ResolvedBase, components: Collection[str]) -> BaseLayers:
    """Return the layers that the configs of its components describe; loading checks that they are
    the file's."""
    from importlib import import_module

    from hublora.resolution.model_folder import check_model_folder
    from hublora.resolution.parameter_count import empty_model

    parts, single = base.components, base.single
    assert parts is not None, "resolving sets both"
    assert single is not None, "resolving sets both"
    index = json.loads(_read(parts, _INDEX))
    shapes = {}
    for component in COMPONENTS:
        if component in components and f"{component}/config.json" in parts.files:
            config = _local_copy(parts, f"{component}/config.json")
            check_model_folder(config.parent, f"{parts.ref.name}/{component}", weights=False)
            library, kind = index[component]
            model = empty_model(
                getattr(import_module(library), kind), config.parent, parts.ref.name
            )
            shapes[component] = _shapes_of(model)
    return BaseLayers(base.ref.name, base.commit, single.family.name, base.card, shapes)


def _shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    import torch

    prefix, kinds = file_prefix(model), torch.nn.Linear | torch.nn.Conv2d
    modules = ((name, one) for name, one in model.named_modules() if isinstance(one, kinds))
    return {prefix + name: tuple(one.weight.shape) for name, one in modules}


def _local_copy(base: ResolvedBase, file: str) -> Path:
    if base.ref.repo_id is not None:
        return download(base.ref.repo_id, str(base.commit), file)
    assert base.ref.folder is not None, "one of both is set"
    return base.ref.folder / file


def _header(base: ResolvedBase, file: str) -> Header:
    if path := _local(base, file):
        return read_file_header(path)
    return read_header(_remote(base, file), Path(file).name)


def _read(base: ResolvedBase, file: str) -> bytes:
    if path := _local(base, file):
        return path.read_bytes()
    return _remote(base, file)(0, _INDEX_BYTES)


def _remote(base: ResolvedBase, file: str) -> ReadRange:
    assert base.ref.repo_id is not None, "the files of a folder are local"
    return range_reader(base.ref.repo_id, str(base.commit), file)


def _local(base: ResolvedBase, file: str) -> Path | None:
    """Return the local copy of a file, None if it is not cached."""
    from huggingface_hub import try_to_load_from_cache

    if base.ref.repo_id is None:
        return base.ref.folder / file if base.ref.folder else None
    if is_offline():
        return download(base.ref.repo_id, str(base.commit), file)
    cached = try_to_load_from_cache(base.ref.repo_id, file, revision=base.commit)
    return Path(cached) if isinstance(cached, str) else None


def _weights(component: str, files: Collection[str]) -> list[str]:
    """Return the safetensors files of a component, in one precision: one file or its shards."""
    safe = [
        file
        for file in files
        if file.startswith(tuple(f"{component}/{stem}" for stem in _STEMS))
        if file.endswith(".safetensors") and ".non_ema." not in file
    ]
    full = [file for file in safe if ".fp16." not in file]
    return sorted(full or safe)


def _layers(headers: list[Header]) -> dict[str, tuple[int, ...]]:
    """Return layer -> shape of the linear layers and convolutions."""
    shapes = {
        name.removesuffix(".weight"): shape
        for header in headers
        for name, shape in header.shapes.items()
        if name.endswith(".weight") and len(shape) in (2, 4)
    }
    if not shapes:
        raise AdapterError("The base's weights have no layers that can be adapted.")
    return shapes
