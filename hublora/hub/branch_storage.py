"""A branch beside main that holds one set of files, replaced as a whole and without a history.

Nothing of it is ever on main. Each replacement is one commit; afterwards the branch is squashed to
it, and the large files that only the old one had are removed from the Hub's storage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, hf_hub_download

from hublora.errors import HubloraError, NotFoundError
from hublora.hub.client import api, translated, without_bars
from hublora.hub.resolve import RepoSnapshot, inspect_repo

_OF_GIT = ".gitattributes"  # says which files are large


def branch_snapshot(repo_id: str, branch: str) -> RepoSnapshot | None:
    """Return what the branch holds now, None if there is no such branch or repo.

    Raises:
        HubError: The Hub is away.
    """
    try:
        return inspect_repo(repo_id, "model", branch)
    except NotFoundError:
        return None


def is_private(repo_id: str) -> bool | None:
    """Tell whether others cannot see a repo, None if there is no such repo.

    Raises:
        HubError: The Hub is away.
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
    """Let the branch hold `files` and nothing else; repo and branch are made if need be.

    Args:
        repo_id: owner/name.
        branch: Its name.
        files: Path in the repo -> file.
        message: Of the commit.
        private: Make the repo private, if it is made.

    Raises:
        HubError: The Hub is away or refuses; the branch holds what it held.
    """
    with translated(f"model {repo_id}"):
        client = api()
        client.create_repo(repo_id, private=private or None, exist_ok=True)
        client.create_branch(repo_id, branch=branch, exist_ok=True)
        before = _own_files(repo_id, branch)
        there = client.list_repo_files(repo_id, revision=branch)
        stale = [name for name in there if name not in files and name != _OF_GIT]
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
    with contextlib.suppress(HubloraError):  # that takes more rights than writing does
        _free(repo_id, before)


def remove(repo_id: str, branch: str) -> None:
    """Delete the branch, and from the Hub's storage what only it had.

    Raises:
        HubError: The Hub is away or refuses.
    """
    with translated(f"model {repo_id}", branch):
        before = _own_files(repo_id, branch)
        api().delete_branch(repo_id, branch=branch)
    with contextlib.suppress(HubloraError):
        _free(repo_id, before)


def fetch(repo_id: str, snapshot: RepoSnapshot, names: Iterable[str], folder: Path) -> None:
    """Download files of a commit into `folder`, past the cache: they are large and read once.

    Raises:
        HubError: The Hub is away.
    """
    with translated(f"model {repo_id}", snapshot.commit):
        for name in names:
            hf_hub_download(repo_id, name, revision=snapshot.commit, local_dir=folder)


def _free(repo_id: str, candidates: set[str]) -> None:
    """Remove those of the large files that no branch, tag or pull request has any more."""
    with translated(f"model {repo_id}"):
        refs = api().list_repo_refs(repo_id, include_pull_requests=True)
        standing = [*refs.branches, *refs.tags, *(refs.pull_requests or [])]
        used: set[str] = set()
        for ref in standing:
            used |= _large_files(repo_id, ref.target_commit)
        gone = candidates - used
        files = [one for one in api().list_lfs_files(repo_id) if one.oid in gone]
        if files:
            # Nothing refers to them, so there is no history to rewrite.
            api().permanently_delete_lfs_files(repo_id, files, rewrite_history=False)


def _own_files(repo_id: str, branch: str) -> set[str]:
    """Return the SHA-256 of each large file in the commits that the branch has and main has not:
    one, and those that were not squashed away because the process was killed."""
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
