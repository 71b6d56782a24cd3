"""Opens adapters: from a ref to facts, and to tensors if they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.files import (
    PEFT_CONFIG,
    facts_from_header,
    load_adapter,
    read_peft_config,
)
from hublora.adapters.header import read_file_header, read_header
from hublora.errors import AdapterError, NotFoundError
from hublora.hub.client import is_offline
from hublora.hub.download import download, range_reader
from hublora.hub.layout import CARD, WEIGHTS
from hublora.hub.resolve import ResolvedAdapter, read_card, resolve_adapter
from hublora.refs import AdapterRef, parse_refs
from hublora.workflows.progress import Observer, downloading, ignore


def inspect(*refs: str) -> list[AdapterFacts]:
    """Return the facts of adapters from their headers and cards, without their weights.

    Raises:
        HubloraError: As `load`.
    """
    return [_inspect_one(ref) for ref in parse_refs(refs)]


def open_adapter(ref: AdapterRef, observer: Observer = ignore) -> Adapter:
    """Bring an adapter to this machine and read it.

    Raises:
        NotFoundError: It is not there.
        AdapterError: It is broken or no adapter.
    """
    resolved, path = _pin(ref, observer)
    return load_adapter(path, **_facts_from_card(resolved))


def _inspect_one(ref: AdapterRef) -> AdapterFacts:
    if ref.kind != "repo" or is_offline():
        resolved, path = _pin(ref, ignore)
        more = _facts_from_card(resolved) | {"size": path.stat().st_size}
        return facts_from_header(read_file_header(path), read_peft_config(path), **more)
    resolved = resolve_adapter(ref)
    repo_id, commit, name = _pinned(resolved)
    beside = _companion(name, PEFT_CONFIG)
    config = None
    if beside in resolved.files:
        config = read_peft_config(download(repo_id, commit, beside))
    header = read_header(range_reader(repo_id, commit, name), Path(name).name)
    more = _facts_from_card(resolved) | {"size": resolved.files[name]}
    return facts_from_header(header, config, **more)


def _pin(ref: AdapterRef, observer: Observer) -> tuple[ResolvedAdapter, Path]:
    """Return a ref at its commit with a local copy of its file."""
    if ref.kind == "repo":
        resolved = resolve_adapter(ref)
        repo_id, commit, name = _pinned(resolved)
        # Beside the weights in the cache, they are there offline too.
        for companion in (CARD, _companion(name, PEFT_CONFIG)):
            if companion in resolved.files:
                download(repo_id, commit, companion)
        progress = downloading(observer)
        return resolved, download(repo_id, commit, name, progress=progress)
    if ref.kind == "url":
        from hublora.hub.urls import download_url

        return ResolvedAdapter(ref), download_url(ref.location, downloading(observer))
    path = _local_file(ref)
    return ResolvedAdapter(ref, read_card(path.parent / CARD)), path


def _pinned(resolved: ResolvedAdapter) -> tuple[str, str, str]:
    ref = resolved.ref
    assert ref.revision is not None, "resolving pins"
    assert ref.path is not None, "resolving finds the file"
    return ref.location, ref.revision, ref.path


def _companion(name: str, other: str) -> str:
    """Return the path of the file `other` in the folder of `name`, inside a repo."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash + other


def _local_file(ref: AdapterRef) -> Path:
    try:
        path = Path(ref.location).expanduser()
    except RuntimeError as error:  # ~somebody who is not there
        raise NotFoundError(f"There is no file or folder {ref.location}.") from error
    if path.is_file():
        if path.suffix != ".safetensors":
            raise AdapterError(
                f"{path} is not a .safetensors file.", "Only safetensors files are opened."
            )
        return path
    if not path.is_dir():
        raise NotFoundError(f"There is no file or folder {path}.")
    found = sorted(path.glob("*.safetensors"))
    usual = [file for file in found if file.name == WEIGHTS]
    if len(usual or found) != 1:
        listed = ", ".join(str(file) for file in found) or "none"
        raise AdapterError(f"{path} should hold one adapter; it holds: {listed}.")
    return (usual or found)[0]


def _facts_from_card(resolved: ResolvedAdapter) -> dict[str, Any]:
    card: Mapping[str, Any] = resolved.card
    base = card.get("base_model")
    if isinstance(base, list):
        base = base[0] if len(base) == 1 else None
    trigger = card.get("instance_prompt")
    stated_license = card.get("license")
    return {
        "base_model": base if isinstance(base, str) else None,
        "trigger_words": tuple(w.strip() for w in trigger.split(",") if w.strip())
        if isinstance(trigger, str)
        else (),
        "license": stated_license if isinstance(stated_license, str) else None,
        "source": resolved.ref.public,
    }
