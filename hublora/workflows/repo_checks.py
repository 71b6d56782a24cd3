"""Checks of a repo's files against each other.

Each check returns whether it passed (None if there was nothing to check) and what was found, as a
sentence without its full stop.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from hublora.adapters.files import load_adapter
from hublora.adapters.header import read_file_header
from hublora.adapters.similarity import similarity_of
from hublora.errors import NotFoundError
from hublora.filesystem import sha256_of
from hublora.generation.gallery import gallery_images
from hublora.hub.repo_layout import CARD, LEARNED_EMBEDDINGS, LOCK, SETTINGS, WEIGHTS
from hublora.hub.resolve import read_card
from hublora.resolution.lockfile import read_lockfile
from hublora.training.config.training_config import flatten, read_settings_file

_MIN_COSINE = 0.9999  # of one adapter in two layouts; half precision loses some bits in one

Finding = tuple[bool | None, str]


def trained_files(folder: Path) -> list[str]:
    """Return the files with trained tensors: the adapter first, then token embeddings.

    Raises:
        NotFoundError: The folder has none.
    """
    found = _trained(folder)
    if not found:
        raise NotFoundError(f"There is neither {WEIGHTS} nor {LEARNED_EMBEDDINGS}.")
    return found


def _trained(folder: Path) -> list[str]:
    found = [name for name in (WEIGHTS, LEARNED_EMBEDDINGS) if (folder / name).is_file()]
    return found + [
        f"embeddings/{path.name}" for path in sorted(folder.glob("embeddings/*.safetensors"))
    ]


def content_files(folder: Path) -> list[str]:
    """Return the files that the repo is about: trained tensors, or the lockfile."""
    return _trained(folder) or [LOCK] * (folder / LOCK).is_file()


def check_files(folder: Path) -> Finding:
    """Check that the adapter and every file that the card names exist."""
    card = folder / CARD
    if not card.is_file():
        return False, f"there is no {CARD}"
    named = set(content_files(folder)) | _named_files(card)
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        return False, f"the card names files that do not exist: {', '.join(missing)}"
    return True, f"{every(named, 'file', 'files')} that the card names exist"


def every(things: Collection[object], one: str, several: str) -> str:
    """Return "all 3 files" or "the only file"."""
    return f"all {len(things)} {several}" if len(things) > 1 else f"the only {one}"


def _named_files(card: Path) -> set[str]:
    """Return the paths in the repo that a card shows or links to."""
    front = read_card(card)
    widgets = front.get("widget") or []
    shown = {
        str(one["output"]["url"])
        for one in widgets
        if isinstance(one, dict) and isinstance(one.get("output"), dict) and "url" in one["output"]
    }
    text = card.read_text(encoding="utf-8")
    shown |= set(re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text))
    shown |= set(re.findall(r"\]\(/[^/\s)]+/[^/\s)]+/resolve/main/([^)\s]+)\)", text))
    return {unquote(one) for one in shown if "://" not in one and not one.startswith("/")}


def check_facts(folder: Path) -> Finding:
    """Check that card, adapter and settings name the same base and dataset."""
    card = read_card(folder / CARD)
    has_settings = (folder / SETTINGS).is_file()
    settings = flatten(read_settings_file(folder / SETTINGS)) if has_settings else {}
    stated = _stated(folder)
    named: dict[str, dict[str, Any]] = {
        "base": {
            "the card": _bases(card)[-1],
            "the adapter": _repo_of(stated.get("hublora.base_model")),
            "the settings": _repo_of(settings.get("base.model")),
        },
        "generation base": {
            "the card": _bases(card)[0],
            "the adapter": stated.get("hublora.generation_base"),
            "the settings": settings.get("base.generation"),
        }
        if stated.get("hublora.generation_base")
        else {},
        "commit of the base": {
            "the adapter": stated.get("hublora.base_revision"),
            "the settings": settings.get("base.revision"),
        },
        "dataset": {
            "the card": _single(card.get("datasets")),
            "the adapter": stated.get("hublora.dataset"),
            "the settings": settings.get("data.dataset"),
        },
    }
    for fact, by_source in named.items():
        known = {source: value for source, value in by_source.items() if value}
        if len(set(known.values())) > 1:
            listed = ", ".join(f"{value} ({source})" for source, value in known.items())
            return False, f"the {fact} differs: {listed}"
    return True, "card, adapter and settings name the same base and dataset"


def _stated(folder: Path) -> Mapping[str, str]:
    """Return the metadata of the trained file; of a composition the base of its lockfile."""
    if trained := _trained(folder):
        return read_file_header(folder / trained[0]).metadata
    return {"hublora.base_model": read_lockfile(folder / LOCK, folder.name).base.repo}


def _repo_of(base: Any) -> Any:
    """Return the repo of a single file, owner/name/file.safetensors; any other base as it is."""
    if isinstance(base, str) and base.endswith(".safetensors"):
        return "/".join(base.split("/")[:2])
    return base


def _bases(card: Mapping[str, Any]) -> list[Any]:
    """Return what a card names as base: the one that the adapter is used on, then the one that it
    was trained on."""
    named = card.get("base_model")
    return named if isinstance(named, list) and named else [named]


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def check_other_layout(folder: Path) -> Finding:
    """Check that the files in ComfyUI's layout have the same updates."""
    others = sorted(folder.glob("comfyui/*.safetensors"))
    if not others or not (folder / WEIGHTS).is_file():
        return None, "there is none"
    adapter = load_adapter(folder / WEIGHTS)
    for other in others:
        cosine = similarity_of(adapter, load_adapter(other)).cosine
        if cosine < _MIN_COSINE:
            return False, f"comfyui/{other.name} is another adapter (cosine {cosine:.4f})"
    return True, "it is the same adapter"


def check_images(folder: Path) -> Finding:
    """Check that the images were generated with these very files."""
    images = gallery_images(folder)
    if not images:
        return None, "no image records how it was generated"
    if trained := _trained(folder):
        hashes = {sha256_of(folder / trained[0])}
    else:
        hashes = {part.sha256 for part in read_lockfile(folder / LOCK, folder.name).parts}
    others = [
        path.name
        for path, facts in images
        if not hashes <= {one.get("sha256") for one in facts["adapters"]}
    ]
    if others:
        return False, f"generated with another file: {', '.join(others)}"
    return True, f"{every(images, 'image is', 'images are')} generated with this adapter"
