"""What the API tells of a repo: one function per field, under the field's name on the wire.

Names and shapes are those that `ModelInfo`, `DatasetInfo` and `SpaceInfo` of huggingface_hub read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pygit2

from .store import Store, cards
from .store.errors import StoreError
from .store.git import DEFAULT_BRANCH, Entry, GitRepo
from .store.indexing import parameters
from .store.repos import Repo

log = logging.getLogger("hublora.hub")


@dataclass
class View:
    """A repo at one revision; looks into git only for what is asked."""

    store: Store
    repo: Repo
    revision: str | None = None
    blobs: bool = False

    @cached_property
    def git(self) -> GitRepo:
        """The git repository."""
        return self.store.git(self.repo)

    @cached_property
    def sha(self) -> str:
        """The commit that is looked at."""
        if self.revision is None and self.repo.head:
            return self.repo.head
        return self.git.resolve(self.revision or DEFAULT_BRANCH)

    @property
    def public_sha(self) -> str:
        """The id by which the world knows that commit; lists stay out of git unless it has two."""
        if self.sha not in self.store.aliases.of(self.repo.id).values():
            return self.sha
        return self.git.public(self.sha, self.revision or "")

    @property
    def newest(self) -> bool:
        """Whether the register already knows all about this commit."""
        return self.sha == self.repo.head

    @cached_property
    def files(self) -> list[Entry]:
        """Every file."""
        return self.git.files(self.sha)

    @cached_property
    def paths(self) -> list[str]:
        """The path of every file."""
        if "files" in self.__dict__:
            return [entry.path for entry in self.files]
        names = self.git.names(self.sha, recursive=True)
        return [name.path for name in names if not name.is_folder]

    @cached_property
    def card(self) -> dict[str, Any]:
        """The README's metadata."""
        if self.newest:
            return self.repo.card
        return cards.read(self.git.read_file(self.sha, "README.md", cards.MAX_README_BYTES))

    @cached_property
    def tags(self) -> list[str]:
        """The tags, derived as the Hub derives them."""
        if self.newest:
            return list(self.repo.tags)
        return cards.tags(self.repo.kind, self.card, self.paths)

    @property
    def last_modified(self) -> str:
        """When the commit was made."""
        return self.repo.modified_at if self.newest else self.git.commit(self.sha).date

    def siblings(self) -> list[dict[str, Any]]:
        """The files as `RepoSibling`s, with sizes and ids only when asked."""
        if not self.blobs:
            return [{"rfilename": path} for path in self.paths]
        return [sibling(entry) for entry in self.files]

    def used_storage(self) -> int:
        """Bytes of all large files that the repo ever had."""
        row = self.store.database.row(
            "SELECT COALESCE(SUM(size), 0) AS total FROM large_files WHERE repo = ?", self.repo.id
        )
        return int(row["total"]) if row else 0


def sibling(entry: Entry) -> dict[str, Any]:
    """Return a file as `RepoSibling` reads it."""
    facts: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.oid}
    if entry.lfs:
        facts["lfs"] = {
            "sha256": entry.lfs.oid,
            "size": entry.lfs.size,
            "pointerSize": len(entry.lfs.encode()),
        }
    return facts


Field = Callable[[View], Any]
COMMON: dict[str, Field] = {
    "author": lambda view: view.repo.owner,
    "cardData": lambda view: view.card,
    "createdAt": lambda view: view.repo.created_at,
    "disabled": lambda view: bool(view.repo.damage),
    "downloads": lambda view: view.repo.downloads,
    "downloadsAllTime": lambda view: view.repo.downloads,
    "gated": lambda view: view.repo.gated or False,
    "lastModified": lambda view: view.last_modified,
    "likes": lambda view: view.repo.likes,
    "private": lambda view: view.repo.private,
    "resourceGroup": lambda view: None,
    "sha": lambda view: view.public_sha,
    "siblings": View.siblings,
    "tags": lambda view: view.tags,
    "trendingScore": lambda view: view.repo.likes,
    "usedStorage": View.used_storage,
}
MODEL: dict[str, Field] = {
    **COMMON,
    "baseModels": lambda view: _base_models(view),
    "childrenModelCount": lambda view: _children(view),
    "config": lambda view: _config(view),
    "evalResults": lambda view: [],
    "gguf": lambda view: None,
    "inference": lambda view: None,
    "inferenceProviderMapping": lambda view: [],
    "library_name": lambda view: cards.library(view.card, view.paths),
    "mask_token": lambda view: None,
    "model-index": lambda view: view.card.get("model-index"),
    "pipeline_tag": lambda view: cards.pipeline_tag(view.card),
    "safetensors": lambda view: _safetensors(view),
    "spaces": lambda view: [],
    "transformersInfo": lambda view: None,
    "widgetData": lambda view: view.card.get("widget"),
}
DATASET: dict[str, Field] = {
    **COMMON,
    "citation": lambda view: None,
    "description": lambda view: view.card.get("description"),
    "mainSize": lambda view: None,
    "paperswithcode_id": lambda view: view.card.get("paperswithcode_id"),
}
SPACE: dict[str, Field] = {
    **COMMON,
    "datasets": lambda view: view.card.get("datasets", []),
    "models": lambda view: view.card.get("models", []),
    "region": lambda view: "us",
    "runtime": lambda view: {"stage": "NO_APP_FILE", "hardware": {}, "storage": None},
    "sdk": lambda view: view.repo.sdk,
    "subdomain": lambda view: view.repo.name.replace("/", "-").lower(),
}
FIELDS = {"model": MODEL, "dataset": DATASET, "space": SPACE}

_ONLY_WHEN_ASKED = (
    "baseModels childrenModelCount resourceGroup downloadsAllTime trendingScore gguf inference"
    " inferenceProviderMapping evalResults"
)
_IN_LISTS = (
    "author createdAt downloads gated lastModified library_name likes pipeline_tag private sdk sha"
    " tags trendingScore"
)


def details(view: View, expand: Iterable[str] = ()) -> dict[str, Any]:
    """Return what `model_info` and its siblings get: everything, or just the fields asked for."""
    fields = FIELDS[view.repo.kind]
    wanted = list(expand) or [name for name in fields if name not in _ONLY_WHEN_ASKED.split()]
    return _identity(view) | {name: fields[name](view) for name in wanted if name in fields}


def summary(view: View, expand: Iterable[str], full: bool, card: bool) -> dict[str, Any]:
    """Return one entry of a list."""
    fields = FIELDS[view.repo.kind]
    wanted = list(expand)
    if not wanted:
        wanted = [
            *_IN_LISTS.split(),
            *(["siblings"] if full else []),
            *(["cardData"] if card else []),
        ]
    answers = _identity(view)
    for name in wanted:
        if name == "library_name" and view.repo.kind == "model":
            answers[name] = view.repo.library_name  # from the register: lists stay out of git
        elif name in fields:
            try:
                answers[name] = fields[name](view)
            except (StoreError, pygit2.GitError, OSError) as problem:
                # One repo's damage is not to keep anybody from listing the others.
                log.error("%s: its %s cannot be read: %s", view.repo.path, name, problem)
                answers[name] = None
    return answers


def _identity(view: View) -> dict[str, Any]:
    facts = {"_id": view.repo.id, "id": view.repo.name}
    return facts | {"modelId": view.repo.name} if view.repo.kind == "model" else facts


def _base_models(view: View) -> dict[str, Any] | None:
    names = cards.adapter_of(view.card)
    if not names:
        return None
    relation = cards.relation(view.card, view.paths)
    return {"relation": relation, "models": [{"id": name} for name in names]}


def _children(view: View) -> int:
    row = view.store.database.row(
        "SELECT COUNT(*) AS n FROM repo_tags t JOIN repos r ON r.id = t.repo"
        " WHERE t.tag = ? AND r.private = 0",
        f"base_model:{view.repo.name}",
    )
    return int(row["n"]) if row else 0


def _safetensors(view: View) -> dict[str, Any] | None:
    counts = parameters(view.git, view.store.large, view.sha)
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def _config(view: View) -> dict[str, Any]:
    return {"diffusers": {}} if "model_index.json" in view.paths else {}
