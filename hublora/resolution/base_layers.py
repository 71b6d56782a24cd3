"""Names and shapes of a base's layers, from the headers of its weights alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hublora.adapters.header import Header, read_file_header, read_header
from hublora.adapters.layer_names import file_names
from hublora.errors import AdapterError, ConfigError, NotFoundError
from hublora.families.registry import COMPONENTS, FAMILIES
from hublora.hub.client import is_offline
from hublora.hub.download import check_pipeline, download, range_reader
from hublora.hub.resolve import inspect_repo, read_card

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
        return f"{self.name}@{self.commit[:8]}" if self.commit else self.name


def check_named(model: str) -> str:
    """Return a base's name if it is one.

    Raises:
        ConfigError: It is empty.
    """
    if not model.strip():
        raise ConfigError("The name of the base is empty.", "Write --base owner/name, or a folder.")
    return model


def read_base_layers(
    model: str, components: Collection[str], revision: str | None = None
) -> BaseLayers:
    """Return the layers of a base; of its weights only headers are read.

    Args:
        model: Hub id or folder.
        components: Components to read; others cost no request.
        revision: Branch, tag or commit.

    Raises:
        NotFoundError: No such repo, revision or folder, or it is not a pipeline.
        AdapterError: A header is broken.
    """
    source = _source(check_named(model), revision)
    check_pipeline(model, source.files)
    try:
        kind = str(json.loads(source.text(_INDEX)).get("_class_name"))
    except (ValueError, AttributeError) as error:
        raise NotFoundError(f"The {_INDEX} of {model} does not parse.") from error
    family = next((f.name for f in FAMILIES.values() if kind in f.pipeline_classes), None)
    shapes = {}
    for component in COMPONENTS:
        if component in components and (files := _weights(component, source.files)):
            shapes[component] = _layers([source.header(file) for file in files])
    return BaseLayers(source.name, source.commit, family, source.card, shapes)


@dataclass(frozen=True)
class _Source:
    """The files of a base: in a folder, or in a repo at a commit."""

    name: str
    files: Collection[str]
    card: Mapping[str, Any]
    commit: str | None = None
    folder: Path | None = None

    def header(self, file: str) -> Header:
        if path := self._local(file):
            return read_file_header(path)
        return read_header(range_reader(self.name, str(self.commit), file), Path(file).name)

    def text(self, file: str) -> bytes:
        if path := self._local(file):
            return path.read_bytes()
        return range_reader(self.name, str(self.commit), file)(0, _INDEX_BYTES)

    def _local(self, file: str) -> Path | None:
        """Return the local copy of a file, None if it is not cached."""
        from huggingface_hub import try_to_load_from_cache

        if self.folder:
            return self.folder / file
        if is_offline():
            return download(self.name, str(self.commit), file)
        cached = try_to_load_from_cache(self.name, file, revision=self.commit)
        return Path(cached) if isinstance(cached, str) else None


def _source(model: str, revision: str | None) -> _Source:
    folder = Path(model).expanduser()
    if model.startswith((".", "/", "~")) or folder.is_dir():
        paths = [*folder.glob("*"), *folder.glob("*/*")]
        files = [path.relative_to(folder).as_posix() for path in paths]
        card = read_card(folder / "README.md")
        return _Source(folder.resolve().name, files, card, folder=folder)
    snapshot = inspect_repo(model, "model", revision)
    return _Source(model, snapshot.files, snapshot.card, snapshot.commit)


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
