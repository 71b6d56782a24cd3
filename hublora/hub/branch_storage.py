"""Stores one set of files on a branch of its own, without history.

The files are never on main. Each replacement is one commit, to which the branch is then squashed;
large files that only earlier commits of the branch had are removed from the Hub's storage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, hf_hub_download

from hublora.errors import HubloraError, NotFoundError
from hublora.hub.client import api, translated, without_bars
from hublora.hub.resolve import RepoSnapshot, inspect_repo
from hublora.refs import parse_repo_id, parse_revision

_GITATTRIBUTES = ".gitattributes"  # lists the large files


def branch_snapshot(repo_id: str, branch: str) -> RepoSnapshot | None:
    """Return the snapshot of the branch's head, None if the repo or the branch does not exist.

    Raises:
        HubError: The Hub cannot be reached.
    """
    try:
        return inspect_repo(parse_repo_id(repo_id), "model", parse_revision(branch))
    except NotFoundError:
        return None


def is_private(repo_id: str) -> bool | None:
    """Return whether a model repo is private, None if it does not exist.

    Raises:
        HubError: The Hub cannot be reached.
    """
    try:
        with translated(f"model {repo_id}"):
            return bool(api().model_info(repo_id).private)
    except NotFoundError:
        return None


@without_bars()
def replace(
    repo_id: str, branch: str, files: Mapping[str, Path], message: str, private: bool = False
) -> None:
    """Replace the files of a branch in one commit; repo and branch are created if missing.

    Args:
        repo_id: owner/name.
        branch: Name of the branch.
        files: Path in the repo -> local file.
        message: Commit message.
        private: Whether a repo that is created becomes private.

    Raises:
        HubError: The Hub cannot be reached or refuses; the branch is unchanged.
    """
    with translated(f"model {repo_id}"):
        client = api()
        client.create_repo(repo_id, private=private or None, exist_ok=True)
        client.create_branch(repo_id, branch=branch, exist_ok=True)
        before = _own_files(repo_id, branch)
        present = client.list_repo_files(repo_id, revision=branch)
        stale = [name for name in present if name not in files and name != _GITATTRIBUTES]
        client.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(name, path) for name, path in files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=message,
            revision=branch,
        )
        client.super_squash_history(repo_id, branch=branch, commit_message=message)
    with contextlib.suppress(HubloraError):  # deleting needs more rights than writing
        _delete_unreferenced(repo_id, before)


def remove(repo_id: str, branch: str) -> None:
    """Delete a branch, and from the Hub's storage the large files that only it had.

    Raises:
        HubError: The Hub cannot be reached or refuses.
    """
    with translated(f"model {repo_id}", branch):
        before = _own_files(repo_id, branch)
        api().delete_branch(repo_id, branch=branch)
    with contextlib.suppress(HubloraError):
        _delete_unreferenced(repo_id, before)


def fetch(repo_id: str, snapshot: RepoSnapshot, names: Iterable[str], folder: Path) -> None:
    """Download files of a commit into `folder` without caching them: they are large and read once.

    Raises:
        HubError: The Hub cannot be reached.
    """
    with translated(f"model {repo_id}", snapshot.commit):
        for name in names:
            hf_hub_download(repo_id, name, revision=snapshot.commit, local_dir=folder)


def _delete_unreferenced(repo_id: str, candidates: set[str]) -> None:
    """Delete those of the large files (by SHA-256) that no branch, tag or pull request holds."""
    with translated(f"model {repo_id}"):
        refs = api().list_repo_refs(repo_id, include_pull_requests=True)
        live_refs = [*refs.branches, *refs.tags, *(refs.pull_requests or [])]
        used: set[str] = set()
        for ref in live_refs:
            used |= _large_files(repo_id, ref.target_commit)
        unreferenced = candidates - used
        files = [one for one in api().list_lfs_files(repo_id) if one.oid in unreferenced]
        if files:
            # Nothing refers to them, so there is no history to rewrite.
            api().permanently_delete_lfs_files(repo_id, files, rewrite_history=False)


def _own_files(repo_id: str, branch: str) -> set[str]:
    """Return the SHA-256 of each large file in the commits that only the branch has.

    More than one commit is left where a process was killed before it squashed the branch.
    """
    of_main = {one.commit_id for one in api().list_repo_commits(repo_id)}
    own = [one.commit_id for one in api().list_repo_commits(repo_id, revision=branch)]
    found: set[str] = set()
    for commit in own:
        if commit not in of_main:
            found |= _large_files(repo_id, commit)
    return found


def _large_files(repo_id: str, revision: str) -> set[str]:
    """Return the SHA-256 of each large file at a revision."""
    siblings = api().model_info(repo_id, revision=revision, files_metadata=True).siblings or []
    return {one.lfs.sha256 for one in siblings if one.lfs}
