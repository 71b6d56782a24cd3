"""Loads the adapters of a composition: from refs to tensors and token embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapter_weights import Weight
from hublora.adapters.adapter import Adapter
from hublora.errors import AdapterError, ConfigError
from hublora.hub.repo_layout import LOCK, WEIGHTS
from hublora.progress import Callback, no_callback
from hublora.refs import AdapterRef, parse_refs
from hublora.resolution.adapter import (
    adapter_label,
    download_adapter,
    embedding_files,
    load_downloaded,
)

if TYPE_CHECKING:
    from hublora.adapters.embeddings import LearnedToken
    from hublora.resolution.lockfile import Lockfile


@dataclass(frozen=True)
class WeightedRef:
    """An adapter ref and its weight, which may be a schedule."""

    ref: AdapterRef
    weight: Weight


@dataclass(frozen=True)
class LoadedAdapter:
    """One adapter of a composition, in memory.

    Attributes:
        asked: The ref as it was given.
        ref: The ref at its commit and file.
        weight: Factor on the update, which may be a schedule.
        adapter: Updates of the layers, and facts.
        tokens: Learned tokens with their embeddings.
        card: Front matter of the card; empty without one.
    """

    asked: AdapterRef
    ref: AdapterRef
    weight: Weight
    adapter: Adapter
    tokens: tuple[LearnedToken, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name of the adapter in messages."""
        return adapter_label(self.asked)

    @property
    def title(self) -> str:
        """A name without a local path in it."""
        if self.ref.kind == "repo":
            return self.ref.location
        path = Path(self.ref.location.partition("?")[0])
        own = path.name != WEIGHTS and path.suffix == ".safetensors"
        folder = path if path.suffix != ".safetensors" else path.parent
        return self.adapter.facts.title or (path.stem if own else folder.resolve().name)

    def licenses(self, of_base: str | None) -> dict[str, str | None]:
        """Return the licence of the adapter and, where that is only its base's, of its images.

        Args:
            of_base: Licence id of the base; None if unknown.
        """
        own, images = self.adapter.facts.license, self.card.get("images_license")
        found = {self.title: own}
        if isinstance(images, str) and own == of_base:
            found[f"images of {self.title}"] = None if images == "unknown" else images
        return found

    def facts(self) -> dict[str, Any]:
        """Return what an image's metadata records of the adapter: no local path."""
        facts = self.adapter.facts
        named = {"title": self.title} if self.ref.kind == "local" else {"ref": self.ref.public}
        followed = self.asked.revision
        asked = {"revision": followed} if followed not in (None, self.ref.revision) else {}
        number = self.weight.number
        weight = str(self.weight) if number is None else number
        hashes = {"sha256": facts.sha256}
        if facts.data_hash:
            hashes["data_hash"] = facts.data_hash
        return {**named, **asked, "weight": weight, **hashes}


def parse_weighted_refs(
    refs: Sequence[str], weights: Mapping[str, str | float] | None = None
) -> list[WeightedRef]:
    """Parse refs, and weights that are given apart from them.

    Args:
        refs: Adapter refs, each with or without a weight.
        weights: Place from 1, or ref without a weight -> weight, which overrides the ref's own.

    Raises:
        RefError: A ref does not parse.
        ConfigError: A weight does not parse, or its key names no ref or several.
    """
    parsed = parse_refs(refs)
    weighted = [WeightedRef(ref, Weight.of(ref.weight)) for ref in parsed]
    for key, value in (weights or {}).items():
        weight = Weight.parse(str(value))
        places = [
            i for i, ref in enumerate(parsed) if key in (str(i + 1), ref.location, ref.public)
        ]
        if len(places) != 1:
            which = "none" if not places else "several"
            raise ConfigError(
                f"The weight of {key!r} matches {which} of the {len(parsed)} adapters.",
                "Name the adapter by its place: --weight 1=0.2..0.9",
            )
        weighted[places[0]] = WeightedRef(parsed[places[0]], weight)
    return weighted


@dataclass(frozen=True)
class ResolvedRefs:
    """The adapters that refs resolve to.

    Attributes:
        adapters: The adapters in order, those of compositions one by one.
        lock: Lockfile of the composition, if the only ref is one; else None.
        composition: Ref of that composition at its commit; None for a local one.
    """

    adapters: tuple[LoadedAdapter, ...]
    lock: Lockfile | None = None
    composition: str | None = None


def load_adapters(wanted: Sequence[WeightedRef], callback: Callback = no_callback) -> ResolvedRefs:
    """Download adapters and load them.

    Raises:
        NotFoundError: A repo, revision or file does not exist.
        AdapterError: A file is broken, is not an adapter, or has another hash than its lockfile
            names.
    """
    return join_refs([_load(one, callback) for one in wanted])


def join_refs(opened: Sequence[ResolvedRefs]) -> ResolvedRefs:
    """Return what several refs resolve to as one; a composition beside others is its adapters."""
    if len(opened) == 1:
        return opened[0]
    return ResolvedRefs(tuple(adapter for one in opened for adapter in one.adapters))


def _load(wanted: WeightedRef, callback: Callback) -> ResolvedRefs:
    resolved, path = download_adapter(wanted.ref, callback)
    if path.name == LOCK:
        return _load_locked(wanted, resolved.ref, path, callback)
    adapter = load_downloaded(resolved, path, callback)
    from hublora.adapters.embeddings import read_bundled_tokens, read_tokens

    files = embedding_files(path) if adapter.layers else [path]
    found = [token for file in files for token in read_tokens(file)]
    tokens = (*found, *(read_bundled_tokens(path) if adapter.layers else ()))
    part = LoadedAdapter(wanted.ref, resolved.ref, wanted.weight, adapter, tokens, resolved.card)
    return ResolvedRefs((part,))


def _load_locked(
    wanted: WeightedRef, ref: AdapterRef, path: Path, callback: Callback
) -> ResolvedRefs:
    """Load the parts of a composition at their commits."""
    from hublora.resolution.lockfile import read_lockfile

    name = wanted.ref.location
    factor = wanted.weight.number
    if factor is None:
        raise ConfigError(
            f"The weight of the composition {name} must be one number, got {wanted.weight}.",
            f"Write it like {name}:0.8.",
        )
    lock = read_lockfile(path, name)
    parts = []
    for locked in lock.parts:
        weight = Weight.parse(locked.weight).times(factor)
        (part,) = _load(WeightedRef(locked.ref, weight), callback).adapters
        if part.adapter.facts.sha256 != locked.sha256:
            raise AdapterError(f"{part.label} has another hash than the lockfile of {name} names.")
        parts.append(replace(part, asked=locked.followed))
    named = ref.public if ref.kind == "repo" else None
    return ResolvedRefs(tuple(parts), lock, named)
