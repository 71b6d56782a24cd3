"""Pushes images and captions as a dataset repo: one commit, then its checksums are verified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, RepoFile

from hublora.errors import AccessError, HubloraError, PushError, VerificationError
from hublora.hub.client import api, translated, without_bars
from hublora.hub.push import PushResult
from hublora.hub.resolve import inspect_repo
from hublora.refs import parse_repo_id

_BATCH = 100  # paths in one request


@without_bars()
def push_dataset_files(
    files: Mapping[str, Path | bytes], repo_id: str, *, message: str, private: bool = False
) -> PushResult:
    """Upload files as one commit on the main branch of a dataset repo, and verify it.

    Args:
        files: Path in the repo -> local file, or its content.
        repo_id: owner/name; created if it does not exist.
        message: Commit message.
        private: Whether a repo that is created becomes private.

    Raises:
        AccessError: The token may not write there.
        PushError: It did not complete.
        VerificationError: The commit does not hold the files that were sent.
    """
    try:
        with translated(f"dataset {repo_id}"):
            client = api()
            url = client.create_repo(
                repo_id, repo_type="dataset", private=private or None, exist_ok=True
            )
            head = inspect_repo(parse_repo_id(repo_id), "dataset")
            commit = client.create_commit(
                repo_id,
                [CommitOperationAdd(name, content) for name, content in files.items()],
                repo_type="dataset",
                commit_message=message,
                parent_commit=head.commit,
            )
            wrong = _differing(files, repo_id, commit.oid)
    except AccessError:
        raise
    except (HubloraError, OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PushError(
            f"The push to {repo_id} did not complete: {reason}", "Run the same command again."
        ) from error
    if wrong:
        raise VerificationError(
            f"{repo_id}@{commit.oid[:8]} differs from what was pushed: {', '.join(wrong[:5])}.",
            "Run the same command again.",
        )
    return PushResult(repo_id, commit.oid, str(url), tuple(files))


def _differing(files: Mapping[str, Path | bytes], repo_id: str, commit: str) -> list[str]:
    """Return the paths that are missing at the commit or have another hash there."""
    names = list(files)
    pushed: dict[str, RepoFile] = {}
    for start in range(0, len(names), _BATCH):
        found = api().get_paths_info(
            repo_id, names[start : start + _BATCH], repo_type="dataset", revision=commit
        )
        pushed |= {one.path: one for one in found if isinstance(one, RepoFile)}
    return [name for name in names if name not in pushed or not _same(files[name], pushed[name])]


def _same(content: Path | bytes, file: RepoFile) -> bool:
    data = content if isinstance(content, bytes) else content.read_bytes()
    if file.lfs is not None:
        return hashlib.sha256(data).hexdigest() == file.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == file.blob_id
