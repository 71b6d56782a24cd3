"""Resolves repos and adapter refs to a commit and a file, once; later reads use both.

    named                online                       HF_HUB_OFFLINE=1
    a local path         the path                     the path
    a commit sha         that commit                  that commit, from the cache
    a branch, tag, PR    the Hub's, then cached       as last cached
    a file in a repo     downloaded at the commit     the cached copy of that commit

The mapping is cached in the `refs/` folder of huggingface_hub's cache, in its format:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelInfo, constants, resolve_revision
from huggingface_hub.errors import RevisionResolutionError

from hublora import strict_yaml
from hublora.errors import AdapterError, HubError, NotFoundError
from hublora.filesystem import cache_root, write_atomically
from hublora.hub.client import REPLACED_REPOS, MissingRevisionError, api, is_offline, translated
from hublora.hub.download import cache_folder
from hublora.hub.pipeline_files import PICKLES
from hublora.hub.repo_layout import LOCK, WEIGHTS
from hublora.hub.transport import TIMEOUT, repeated
from hublora.quoting import one_line
from hublora.refs import AdapterRef, RepoId, Revision

MAX_CARD_BYTES = 2 << 20
_SHA = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True)
class RepoSnapshot:
    """The files and the card of a repo at one commit.

    Attributes:
        repo_id: owner/name.
        commit: 40 hexadecimal digits.
        files: Path -> size in bytes, None if unknown.
        card: Front matter of its README.md, empty without one.
    """

    repo_id: str
    commit: str
    files: Mapping[str, int | None]
    card: Mapping[str, Any]


@dataclass(frozen=True)
class ResolvedAdapter:
    """An adapter ref at a commit and a file.

    Attributes:
        ref: The ref with its commit and file.
        card: Front matter of the repo's card; empty for local files and URLs.
        files: Path -> size in bytes of the repo's files at that commit; empty for local files
            and URLs.
    """

    ref: AdapterRef
    card: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, int | None] = field(default_factory=dict)


def license_of(card: Mapping[str, Any]) -> str | None:
    """Return the licence id in a card's front matter; for the id "other" its `license_name`. None
    if the card states none."""
    stated = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return one_line(stated) or None if isinstance(stated, str) else None


def inspect_repo(
    repo_id: RepoId, repo_type: str = "model", revision: Revision | None = None
) -> RepoSnapshot:
    """Return commit, files and card of a repo at `revision` (None for main) in one request.

    Raises:
        NotFoundError: No such repo or revision.
        AccessError: The token may not read it.
        HubError: The Hub cannot be reached, or it is offline and the repo is not cached.
    """
    revision = revision or Revision(constants.DEFAULT_REVISION)
    if is_offline():
        return _inspect_cache(repo_id, repo_type, revision)
    with translated(f"{repo_type} {repo_id}", revision):
        info = repeated(
            lambda: api().repo_info(
                repo_id,
                repo_type=repo_type,
                revision=revision,
                files_metadata=True,
                timeout=TIMEOUT,
            )
        )
    if not info.sha or not _SHA.match(info.sha):
        raise HubError(f"The Hub named no commit for the {repo_type} {repo_id}.")
    _cache_commit(repo_id, repo_type, revision, info.sha)
    card = getattr(info, "card_data", None)
    return RepoSnapshot(
        repo_id,
        info.sha,
        {file.rfilename: file.size for file in getattr(info, "siblings", None) or []},
        card.to_dict() if card is not None else {},
    )


def changed_files(repo_id: str, old: str, new: str) -> set[str] | None:
    """Return the files of a model that differ between two commits, None if one does not exist.

    Raises:
        HubError: The Hub cannot be reached.
    """
    files = []
    for commit in (old, new):
        try:
            with translated(f"model {repo_id}", commit):
                info = _model_info(repo_id, commit)
        except NotFoundError:
            return None
        files.append({(file.rfilename, file.blob_id) for file in info.siblings or []})
    return {name for name, _ in files[0] ^ files[1]}


def file_ids(repo_id: str, commit: str) -> Mapping[str, str]:
    """Return path -> git id of the content of a model's files at a commit, kept for offline use.

    Files of two repos with one id are equal.

    Raises:
        HubError: The Hub cannot be reached, and they are not cached.
    """
    record = cache_root() / "file_ids" / f"{commit}.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return {str(name): str(one) for name, one in json.loads(record.read_bytes()).items()}
    if is_offline():
        return {}
    with translated(f"model {repo_id}", commit):
        info = _model_info(repo_id, commit)
    found = {file.rfilename: file.blob_id for file in info.siblings or [] if file.blob_id}
    with contextlib.suppress(OSError):  # a read-only cache works online
        write_atomically(record, json.dumps(found))
    return found


def _model_info(repo_id: str, commit: str) -> ModelInfo:
    return repeated(
        lambda: api().model_info(repo_id, revision=commit, files_metadata=True, timeout=TIMEOUT)
    )


def resolve_adapter(ref: AdapterRef) -> ResolvedAdapter:
    """Resolve an adapter ref of a repo to its commit and file; downloads nothing.

    The file of a composition is its lockfile.

    Raises:
        NotFoundError: No such repo, revision or file.
        AdapterError: The repo has several adapters, only pickle files, or none.
    """
    try:
        snapshot = inspect_repo(ref.repo_id, "model", ref.revision)
    except MissingRevisionError as error:
        if ref.path:  # which may be the rest of a branch's name
            whole = replace(ref, revision=Revision(f"{ref.revision}/{ref.path}"), path=None)
            error.hint = f"If {whole.revision} is the branch, write {whole}"
        raise
    except NotFoundError as error:
        if Path(ref.location).is_dir():  # such as the run folder of a training
            raise NotFoundError(error.message, f"For the folder write ./{ref.location}") from error
        raise
    path = _choose_file(ref, _with_uncached(snapshot))
    return ResolvedAdapter(ref.at(snapshot.commit, path), snapshot.card, snapshot.files)


def _with_uncached(snapshot: RepoSnapshot) -> Mapping[str, int | None]:
    """Return the repo's files: offline also the adapters of the commit that are not cached.

    Without these, a repo of several adapters would seem to have the one that was downloaded.
    """
    safe = [name for name in snapshot.files if name.endswith(".safetensors")]
    record = cache_root() / "listings" / f"{snapshot.commit}.json"
    if not is_offline():
        if len(safe) > 1 and not record.is_file():
            with contextlib.suppress(OSError):  # a read-only cache works online
                record.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(record, json.dumps(safe))
        return snapshot.files
    try:
        listed = [str(name) for name in json.loads(record.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        listed = []
    return {**dict.fromkeys(listed), **snapshot.files}


def _choose_file(ref: AdapterRef, files: Mapping[str, int | None]) -> str:
    safe = [name for name in files if name.endswith(".safetensors")]
    if ref.path in safe:
        return str(ref.path)
    folder = f"{ref.path}/" if ref.path else ""
    inside = [name for name in safe if name.startswith(folder) and "/" not in name[len(folder) :]]
    if folder + WEIGHTS in inside:
        return folder + WEIGHTS
    if LOCK in files and ref.path in (None, LOCK):
        return LOCK
    if ref.path is None and "model_index.json" in files:
        raise is_base(ref.location)
    if len(inside) == 1:
        return inside[0]
    where = f"{ref.location}/{ref.path}" if ref.path else ref.location
    if inside:
        raise AdapterError(f"{where} has {len(inside)} adapters.", _list_refs(ref, inside))
    if ref.path:
        wrong = f"{ref.location} has no file {ref.path!r}."
        if ref.path in files:
            wrong = f"{where} is not a .safetensors file; other files are not opened."
        raise NotFoundError(wrong, _list_refs(ref, safe))
    if safe:
        raise AdapterError(f"{where} has no adapter at its top level.", _list_refs(ref, safe))
    if any(name.endswith(PICKLES) for name in files):
        raise AdapterError(
            f"{where} only has pickle files, which can run code when they are opened.",
            "Ask its author for a .safetensors file.",
        )
    raise AdapterError(f"{where} has no .safetensors file.", "Check that it is an adapter.")


def is_base(name: str) -> AdapterError:
    """Return the error for a base model that is named as an adapter."""
    return AdapterError(
        f"{name} is a base model, not an adapter.",
        f'Generate with it alone: hublora run --base {name} "…"',
    )


def _list_refs(ref: AdapterRef, names: Iterable[str], most: int = 20) -> str | None:
    """Return a hint that lists complete refs, None without names."""
    refs = [str(replace(ref, path=name)) for name in sorted(names)]
    if not refs:
        return None
    listed = "\n".join(f"  {one}" for one in refs[:most])
    return f"Name one:\n{listed}" + ("\n  …" if len(refs) > most else "")


def _cache_commit(repo_id: RepoId, repo_type: str, revision: Revision, commit: str) -> None:
    """Cache a revision's commit where huggingface_hub's `resolve_revision` does.

    That function would cost a second request: it returns neither files nor card.
    """
    if _SHA.match(revision):
        return
    try:
        write_atomically(cache_folder(repo_id, repo_type) / "refs" / revision, commit)
    except OSError:
        pass  # a read-only cache works online


def _inspect_cache(repo_id: RepoId, repo_type: str, revision: Revision) -> RepoSnapshot:
    if repo_id in REPLACED_REPOS:
        raise NotFoundError(
            f"{repo_id} was deleted from the Hub.", f"Use {REPLACED_REPOS[repo_id]} instead."
        )
    try:
        commit = resolve_revision(
            repo_id, repo_type=repo_type, revision=revision, local_files_only=True
        ).resolved
    except RevisionResolutionError:
        commit = ""
    folder = cache_folder(repo_id, repo_type) / "snapshots" / commit
    if not commit or not folder.is_dir():
        raise HubError(
            f"The {repo_type} {repo_id} is not in the local cache and HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE once to download it.",
        )
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size if path.is_file() else None
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()  # a broken one is reported when it is read
    }
    return RepoSnapshot(repo_id, commit, files, read_card(folder / "README.md"))


def read_card(path: Path) -> dict[str, Any]:
    """Return the front matter of a card, empty if there is none or it does not parse."""
    if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
        return {}
    front_matter, _ = strict_yaml.split_front_matter(path.read_text("utf-8", "replace"))
    try:
        found = strict_yaml.loads(front_matter)
    except strict_yaml.YamlError:
        return {}
    return found if isinstance(found, dict) else {}
