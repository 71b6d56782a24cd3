"""Downloads and loads adapters: from a ref to a local file, to facts and to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

from hublora.adapters.adapter import Adapter
from hublora.adapters.files import PEFT_CONFIG, PEFT_WEIGHTS, load_adapter
from hublora.adapters.header import read_file_header
from hublora.errors import AdapterError, NotFoundError
from hublora.families.registry import generation_base_of, speed_of
from hublora.hub.download import download
from hublora.hub.repo_layout import CARD, CONTENTS, LOCK, WEIGHTS
from hublora.hub.resolve import ResolvedAdapter, is_base, license_of, read_card, resolve_adapter
from hublora.progress import Callback, Note, downloading, no_callback
from hublora.quoting import one_line, shell_path
from hublora.refs import AdapterRef, public_url

# What only the front matter of an adapter's card has: a key of the first, or a tag of the second.
_OF_ADAPTERS = frozenset({"base_model", "instance_prompt"})
_ADAPTER_TAGS = frozenset({"lora", "textual_inversion", "hublora"})


def open_adapter(ref: AdapterRef, callback: Callback = no_callback) -> Adapter:
    """Download an adapter and load it.

    Raises:
        NotFoundError: The repo, file or folder does not exist.
        AdapterError: The file is broken or is not an adapter.
    """
    return load_downloaded(*download_adapter(ref, callback), callback)


def load_downloaded(
    resolved: ResolvedAdapter, path: Path, callback: Callback = no_callback
) -> Adapter:
    """Load the file that `download_adapter` returned; report the error of a low-rank rewrite.

    Raises:
        AdapterError: The file is broken or is not an adapter.
    """
    if path.name == LOCK:
        name = resolved.ref.location
        raise AdapterError(
            f"{name} is a composition of several adapters.",
            f"Generate with it: hublora run {name} …",
        )
    adapter = load_adapter(path, **facts_from_card(resolved))
    if adapter.error:
        kind = " and ".join(one for one in adapter.facts.methods if one not in ("lora", "dora"))
        callback(
            Note(
                f"{adapter.facts.source} uses {kind or 'products'}, which is rewritten as "
                f"low rank: a layer differs by up to {adapter.error:.2%} of its update."
            )
        )
    return adapter


def embedding_files(path: Path) -> list[Path]:
    """Return the token embedding files in the folder of an adapter's file, sorted."""
    return sorted(f for pattern in _embeddings(path.name) for f in path.parent.glob(pattern))


def download_adapter(
    ref: AdapterRef, callback: Callback = no_callback
) -> tuple[ResolvedAdapter, Path]:
    """Resolve a ref and download its file; return both, with the path of the local copy.

    The card, a PEFT config and token embeddings are downloaded with it, so that they are cached for
    offline use.

    Raises:
        NotFoundError: The repo, file or folder does not exist.
        AdapterError: The ref does not name exactly one adapter.
        HubError: The Hub cannot be reached and the file is not cached.
    """
    if ref.kind == "repo":
        resolved = resolve_adapter(ref)
        repo_id, commit, name = _pinned(resolved)
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
    path = local_file(ref)
    if (repo := ref.hidden_repo) and Path(ref.location).is_dir():  # no repo is called as a file
        callback(Note(f"{ref.location} is a local folder; the repo on the Hub is {repo}."))
    return ResolvedAdapter(ref, _card_beside(path)), path


def _card_beside(path: Path) -> Mapping[str, Any]:
    """Return the front matter of the README.md in a local adapter's folder, empty unless it is
    about this file: it speaks of an adapter, and the folder is that of one adapter or of a repo."""
    card = read_card(path.parent / CARD)
    tags = card.get("tags")
    speaks = not _OF_ADAPTERS.isdisjoint(card) or (
        isinstance(tags, list) and not _ADAPTER_TAGS.isdisjoint(map(str, tags))
    )
    if not speaks:
        return {}
    others = (one for one in path.parent.glob("*.safetensors") if one != path)
    is_snapshot = path.parent.parent.name == "snapshots"
    usual = path.name in (*CONTENTS, PEFT_WEIGHTS)
    return card if usual or is_snapshot or not any(others) else {}


def adapter_label(ref: AdapterRef) -> str:
    """Return the name of an adapter in messages: its ref without weight and usual file name."""
    usual = ref.kind == "repo" and ref.path == WEIGHTS
    return (replace(ref, path=None) if usual else ref).public


def _check_file(path: Path, ref: AdapterRef) -> None:
    """Check that a download is a complete safetensors file, before it is cached."""
    try:
        read_file_header(path)
    except AdapterError as error:
        where = public_url(ref.location)
        raise AdapterError(f"{where} is not an adapter: {error}") from error


def _pinned(resolved: ResolvedAdapter) -> tuple[str, str, str]:
    ref = resolved.ref
    assert ref.revision is not None, "resolving sets the commit"
    assert ref.path is not None, "resolving sets the file"
    return ref.location, ref.revision, ref.path


def _embeddings(name: str) -> tuple[str, str]:
    """Return glob patterns of the token embeddings beside `name`: hublora's and diffusers'."""
    file = name.rpartition("/")[2]
    pair = "*" if file == WEIGHTS else escape(file.removesuffix(".safetensors"))
    return "embeddings/*.safetensors", f"{pair}_emb.safetensors"


def _companion(name: str, other: str) -> str:
    """Return the path of the file `other` in the folder of `name`, inside a repo."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash + other


def local_file(ref: AdapterRef) -> Path:
    """Return the file of a local ref: an adapter, or the lockfile of a composition.

    Raises:
        NotFoundError: There is no such file or folder.
        AdapterError: It is no safetensors file, or a folder without exactly one.
    """
    try:
        path = Path(ref.location).expanduser()
    except RuntimeError as error:  # ~user without a home
        raise NotFoundError(f"There is no file or folder {ref.location}.") from error
    if path.is_file():
        if path.suffix != ".safetensors":
            raise AdapterError(
                f"{path} is not a .safetensors file.", "Only safetensors files are opened."
            )
        return path
    if not path.is_dir():
        if path.is_symlink():
            raise NotFoundError(
                f"{path} is a link to a file that does not exist: {path.readlink()}.",
                "Download or copy the file again.",
            )
        raise NotFoundError(f"There is no file or folder {path}.")
    if (path / LOCK).is_file():
        if (path / WEIGHTS).is_file():
            raise AdapterError(
                f"{path} has a composition and an adapter.", f"Name one: {path / WEIGHTS}"
            )
        return path / LOCK
    if (path / "model_index.json").is_file() and not (path / WEIGHTS).is_file():
        raise is_base(str(path))
    found = sorted(path.glob("*.safetensors"))
    usual = [file for file in found if file.name == WEIGHTS]
    if len(usual or found) != 1:
        if not found and (checkpoints := sorted(path.glob("checkpoint-*"))):
            raise AdapterError(
                f"{path} is a training that has not finished: {checkpoints[-1].name} is in it.",
                f"Finish it: hublora train --resume {shell_path(path)}",
            )
        listed = ", ".join(str(file) for file in found) or "none"
        raise AdapterError(
            f"{path} must have exactly one adapter, got: {listed}.",
            f"For the repo on the Hub write {ref.hidden_repo}" if ref.hidden_repo else None,
        )
    return (usual or found)[0]


def _bases(card: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the base model that a card names, and the one that its adapter is used on if it names
    a known pair; None for several others."""
    stated = card.get("base_model")
    named = [one for one in (stated if isinstance(stated, list) else [stated]) if one]
    if not all(isinstance(one, str) for one in named):
        return None, None
    if len(named) == 2:
        pairs = ((named[1], named[0]), (named[0], named[1]))
        return next(
            (pair for pair in pairs if generation_base_of(pair[0]) == pair[1]), (None, None)
        )
    return (named[0] if len(named) == 1 else None), None


def _names(ref: AdapterRef) -> tuple[str, ...]:
    """Return the names of an adapter by which published ones are recognised."""
    if ref.kind == "local":
        path = Path(ref.location)
        return path.name, f"{path.parent.name}/{path.name}"
    return (f"{ref.location}/{ref.path or ''}",)


def _tags(card: Mapping[str, Any]) -> list[str]:
    tags = card.get("tags")
    return [one for one in tags if isinstance(one, str)] if isinstance(tags, list) else []


def facts_from_card(resolved: ResolvedAdapter) -> dict[str, Any]:
    """Return the facts in an adapter's card, as arguments of `facts_from_header`."""
    card: Mapping[str, Any] = resolved.card
    base, other = _bases(card)
    trigger = card.get("instance_prompt")
    return {
        "base_model": base,
        "generation_base": other,
        "trigger_words": tuple(w for word in trigger.split(",") if (w := one_line(word)))
        if isinstance(trigger, str)
        else (),
        "license": license_of(card),
        "source": resolved.ref.public,
        "speed": speed_of(_names(resolved.ref), _tags(card)),
    }
