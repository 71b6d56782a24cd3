"""Pushes images and captions as a dataset repo, then verifies its checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, RepoFile

from hublora.errors import AccessError, HubloraError, PushError, VerificationError
from hublora.hub.client import api, translated, without_bars
from hublora.hub.push import PushResult, reason_for_push
from hublora.hub.resolve import inspect_repo
from hublora.hub.transport import repeated
from hublora.refs import parse_repo_id

_BATCH = 100  # paths in one request
_COMMIT_FILES = 1000  # most files of one commit: a Hub has a minute for each
_COMMIT_BYTES = 2 << 30  # after which a commit ends: what is committed need not be sent again


@without_bars()
def push_dataset_files(
    files: Mapping[str, Path | bytes], repo_id: str, *, message: str, private: bool = False
) -> PushResult:
    """Upload files to the main branch of a dataset repo, and verify them.

    Many files, or large ones, go in several commits, in the order of `files`.

    Args:
        files: Path in the repo -> local file, or its content.
        repo_id: owner/name; created if it does not exist.
        message: Commit message.
        private: Whether a repo that is created becomes private.

    Returns:
        The last commit, and all files.

    Raises:
        AccessError: The token may not write there.
        PushError: It did not complete; what was committed is not sent again the next time.
        VerificationError: The commit does not hold the files that were sent.
    """
    try:
        with translated(f"dataset {repo_id}"):
            client = api()
            url = repeated(
                lambda: client.create_repo(
                    repo_id, repo_type="dataset", private=private or None, exist_ok=True
                )
            )
            commit = inspect_repo(parse_repo_id(repo_id), "dataset").commit
            batches = list(_batches(files))
            for number, names in enumerate(batches, start=1):
                part = f" ({number} of {len(batches)})" if len(batches) > 1 else ""
                commit = client.create_commit(
                    repo_id,
                    [CommitOperationAdd(name, files[name]) for name in names],
                    repo_type="dataset",
                    commit_message=message + part,
                    parent_commit=commit,
                ).oid
            wrong = _differing(files, repo_id, commit)
    except AccessError:
        raise
    except (HubloraError, OSError, RuntimeError, ValueError) as error:
        raise PushError(
            f"The push to {repo_id} did not complete: {reason_for_push(error)}",
            "Run the same command again.",
        ) from error
    if wrong:
        raise VerificationError(
            f"{repo_id}@{commit[:8]} differs from what was pushed: {', '.join(wrong[:5])}.",
            "Run the same command again.",
        )
    return PushResult(repo_id, commit, str(url), tuple(files))


def _batches(files: Mapping[str, Path | bytes]) -> Iterator[list[str]]:
    """Yield the paths of each commit."""
    batch: list[str] = []
    size = 0
    for name, content in files.items():
        batch.append(name)
        size += len(content) if isinstance(content, bytes) else content.stat().st_size
        if len(batch) == _COMMIT_FILES or size >= _COMMIT_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


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
