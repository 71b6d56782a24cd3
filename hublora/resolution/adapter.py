"""Opens adapters: from a ref to facts, and to tensors if they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

from hublora.adapters.adapter import Adapter
from hublora.adapters.files import PEFT_CONFIG, load_adapter
from hublora.adapters.header import read_file_header
from hublora.errors import AdapterError, NotFoundError
from hublora.hub.download import download
from hublora.hub.repo_layout import CARD, LOCK, WEIGHTS
from hublora.hub.resolve import ResolvedAdapter, read_card, resolve_adapter
from hublora.progress import Callback, Note, downloading, no_callback
from hublora.quoting import one_line
from hublora.refs import AdapterRef


def open_adapter(ref: AdapterRef, callback: Callback = no_callback) -> Adapter:
    """Bring an adapter to this machine and read it.

    Raises:
        NotFoundError: It is not there.
        AdapterError: It is broken or no adapter.
    """
    return load_downloaded(*download_adapter(ref, callback), callback)


def load_downloaded(
    resolved: ResolvedAdapter, path: Path, callback: Callback = no_callback
) -> Adapter:
    """Read the file that `download_adapter` returned; report the error of a low-rank rewrite.

    Raises:
        AdapterError: It is broken or no adapter.
    """
    if path.name == LOCK:
        name = resolved.ref.location
        raise AdapterError(
            f"{name} is a composition of several adapters.", f"Draw with it: hublora run {name} …"
        )
    adapter = load_adapter(path, **facts_from_card(resolved))
    if adapter.error:
        kind = " and ".join(one for one in adapter.facts.methods if one not in ("lora", "dora"))
        callback(
            Note(
                f"{adapter.facts.source} is made of {kind or 'products'}, which pipelines take as "
                f"low rank: a layer differs by up to {adapter.error:.2%} of its update."
            )
        )
    return adapter


def embedding_files(path: Path) -> list[Path]:
    """Return the files with learned tokens that lie beside an adapter's file, sorted."""
    return sorted(f for pattern in _embeddings(path.name) for f in path.parent.glob(pattern))


def download_adapter(
    ref: AdapterRef, callback: Callback = no_callback
) -> tuple[ResolvedAdapter, Path]:
    """Return a ref at its commit with a local copy of its file."""
    if ref.kind == "repo":
        resolved = resolve_adapter(ref)
        repo_id, commit, name = _pinned(resolved)
        # Beside the weights in the cache, they are there offline too.
        beside = [CARD]
        beside += [_companion(escape(name), one) for one in (PEFT_CONFIG, *_embeddings(name))]
        for companion in resolved.files:
            if any(fnmatchcase(companion, pattern) for pattern in beside):
                download(repo_id, commit, companion)
        progress = downloading(callback)
        return resolved, download(repo_id, commit, name, progress=progress)
    if ref.kind == "url":
        from hublora.hub.urls import download_url

        path = download_url(
            ref.location, progress=downloading(callback), check=lambda path: _check_file(path, ref)
        )
        return ResolvedAdapter(ref), path
    path = _local_file(ref)
    if repo := ref.hidden_repo:
        callback(Note(f"{ref.location} is the folder here; the repo on the Hub is {repo}."))
    return ResolvedAdapter(ref, read_card(path.parent / CARD)), path


def adapter_label(ref: AdapterRef) -> str:
    """Return what an adapter is called in messages: its ref without what nobody types."""
    usual = ref.kind == "repo" and ref.path == WEIGHTS
    return (replace(ref, path=None) if usual else ref).public


def _check_file(path: Path, ref: AdapterRef) -> None:
    """Check that a download is a whole safetensors file, before it stays."""
    try:
        read_file_header(path)
    except AdapterError as error:
        where = ref.location.partition("?")[0]
        raise AdapterError(f"{where} is no adapter: {error}") from error


def _pinned(resolved: ResolvedAdapter) -> tuple[str, str, str]:
    ref = resolved.ref
    assert ref.revision is not None, "resolving pins"
    assert ref.path is not None, "resolving finds the file"
    return ref.location, ref.revision, ref.path


def _embeddings(name: str) -> tuple[str, str]:
    """Return patterns, from the folder of the adapter `name`, of hublora's files and diffusers'."""
    file = name.rpartition("/")[2]
    pair = "*" if file == WEIGHTS else escape(file.removesuffix(".safetensors"))
    return "embeddings/*.safetensors", f"{pair}_emb.safetensors"


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
    if (path / LOCK).is_file():
        if (path / WEIGHTS).is_file():
            raise AdapterError(
                f"{path} holds a composition and an adapter.", f"Name one: {path / WEIGHTS}"
            )
        return path / LOCK
    found = sorted(path.glob("*.safetensors"))
    usual = [file for file in found if file.name == WEIGHTS]
    if len(usual or found) != 1:
        listed = ", ".join(str(file) for file in found) or "none"
        raise AdapterError(
            f"{path} should hold one adapter; it holds: {listed}.",
            f"For the repo on the Hub write {ref.hidden_repo}" if ref.hidden_repo else None,
        )
    return (usual or found)[0]


def facts_from_card(resolved: ResolvedAdapter) -> dict[str, Any]:
    """Return what a card says about an adapter, as arguments of `facts_from_header`."""
    card: Mapping[str, Any] = resolved.card
    base = card.get("base_model")
    if isinstance(base, list):
        base = base[0] if len(base) == 1 else None
    trigger = card.get("instance_prompt")
    stated_license = card.get("license")
    return {
        "base_model": base if isinstance(base, str) else None,
        "trigger_words": tuple(w for word in trigger.split(",") if (w := one_line(word)))
        if isinstance(trigger, str)
        else (),
        "license": stated_license if isinstance(stated_license, str) else None,
        "source": resolved.ref.public,
    }
