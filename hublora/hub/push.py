"""Pushes a folder as one commit: rights are checked before, checksums after."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    RepoUrl,
    hf_hub_download,
    snapshot_download,
)

from hublora.errors import (
    AccessError,
    HubError,
    HubloraError,
    NotFoundError,
    PushError,
    VerificationError,
)
from hublora.filesystem import sha256_of
from hublora.hub.client import api, endpoint, is_offline, translated, whoami, without_bars
from hublora.hub.download import download
from hublora.hub.repo_layout import CARD, CONTENTS, PATTERNS, WEIGHTS, is_repo_file, repo_files
from hublora.hub.resolve import RepoSnapshot, inspect_repo
from hublora.refs import check_repo_id


@dataclass(frozen=True)
class PushResult:
    """The commit that a push created.

    Attributes:
        repo_id: owner/name.
        commit: 40 hexadecimal digits; the head that was there if nothing had changed.
        url: URL of the repo's page.
        files: Paths in the repo of the files that were pushed.
    """

    repo_id: str
    commit: str
    url: str
    files: tuple[str, ...]


def check_can_push(repo_id: str, repo_type: str = "model") -> None:
    """Check, before any long work, that this token may push to `repo_id`.

    Raises:
        RefError: The id has not the form owner/name.
        AccessError: No token, a read-only one, or no right to that owner or repo.
        HubError: Offline, or the Hub cannot be reached.
    """
    check_repo_id(repo_id)
    if is_offline():
        raise HubError(
            "HF_HUB_OFFLINE is set, so nothing can be pushed.",
            "Unset it, or leave --push-to-hub out.",
        )
    person = whoami()
    role = person.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise AccessError(f"The token of {person['name']} may only read.", _token_hint())
    owner, repo_name = repo_id.split("/")
    owners = [person["name"], *(org["name"] for org in person.get("orgs", []))]
    if owner not in owners:
        raise AccessError(
            f"{person['name']} may not push to {owner}/….",
            f"Use one of: {', '.join(f'{name}/{repo_name}' for name in owners)}",
        )
    try:
        with translated(f"{repo_type} {repo_id}"):
            api().auth_check(repo_id, repo_type=repo_type, write=True)
    except NotFoundError:
        pass  # it will be created


def _token_hint() -> str:
    """Return how to create a token that may write and where to set it."""
    if "huggingface.co" in endpoint():
        where = f"Make one that may write at {endpoint()}/settings/tokens"
    else:
        where = "Make one that may write (on a Hub of your own: hublora hub token create NAME)"
    if os.environ.get("HF_TOKEN"):
        return f"{where} and put it into HF_TOKEN."
    return f"{where} and run: hf auth login"


def remote_card(repo_id: str) -> str | None:
    """Return the text of the repo's current README.md, None without a repo or a card.

    Raises:
        HubError: The Hub cannot be reached.
    """
    try:
        snapshot = inspect_repo(repo_id)
    except NotFoundError:
        return None
    if CARD not in snapshot.files:
        return None
    return download(repo_id, snapshot.commit, CARD).read_text(encoding="utf-8")


@without_bars()
def push_folder(folder: Path, repo_id: str, *, message: str, private: bool = False) -> PushResult:
    """Upload the files of the repo layout in `folder` as one commit on main.

    Files of the layout that an earlier push added and that `folder` no longer has are deleted in
    the same commit; all other files in the repo stay.

    Raises:
        PushError: It did not complete; the folder is unchanged and the push can be repeated.
        AccessError: The token may not write there.
    """
    names = repo_files(folder)
    if not any(name in names for name in CONTENTS):
        raise NotFoundError(f"{folder} has no {WEIGHTS}.", "Push the folder of a finished run.")
    try:
        with translated(f"model {repo_id}"):
            return _commit(folder, repo_id, names, message, private)
    except AccessError:
        raise
    # Besides hublora's own: disk, network, and the client's errors about a broken upload.
    except (HubloraError, OSError, RuntimeError, ValueError) as error:
        raise PushError(
            f"The push to {repo_id} did not complete: {_reason(error)}",
            f"All files are kept; try again with: {push_command(folder, repo_id)}",
        ) from error


def push_command(folder: Path, repo_id: str) -> str:
    """Return the command line that pushes `folder`, quoted for a shell."""
    return shlex.join(["hublora", "push", str(folder), repo_id])


@without_bars()
def verify_files(folder: Path, pushed: PushResult) -> None:
    """Read every pushed file back at its commit and compare it with the folder's.

    Raises:
        VerificationError: Naming the files that differ or are missing.
    """
    wrong = []
    with tempfile.TemporaryDirectory(prefix="hublora-verify-") as fresh:
        for name in pushed.files:
            # A cache of its own, and each file for itself: the usual cache may answer with what
            # was uploaded from here, and any cache reads files that should be equal only once.
            try:
                with translated(f"model {pushed.repo_id}", pushed.commit):
                    copy = hf_hub_download(
                        pushed.repo_id,
                        name,
                        revision=pushed.commit,
                        cache_dir=fresh,
                        force_download=True,
                    )
            except (HubError, OSError) as error:
                wrong.append(f"{name} (cannot be read back: {_reason(error)})")
                if isinstance(error, NotFoundError | OSError):
                    continue
                break  # the Hub is away: the others cannot be read either
            if sha256_of(Path(copy)) != sha256_of(folder / name):
                wrong.append(f"{name} (differs)")
    if wrong:
        raise VerificationError(
            f"{pushed.repo_id}@{pushed.commit[:8]} is not what was pushed: {', '.join(wrong)}.",
            f"All files are kept; push again with: {push_command(folder, pushed.repo_id)}",
        )


def _commit(
    folder: Path, repo_id: str, names: list[str], message: str, private: bool
) -> PushResult:
    client = api()
    url: RepoUrl = client.create_repo(repo_id, private=private or None, exist_ok=True)
    head = inspect_repo(repo_id)
    operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in names]
    operations += [CommitOperationDelete(name) for name in _stale(head, names)]
    commit = client.create_commit(
        repo_id, operations, commit_message=message, parent_commit=head.commit
    )
    return PushResult(repo_id, commit.oid, str(url), tuple(names))


def _reason(error: BaseException) -> str:
    """Return the first line of an error's message, of its cause where it only wraps one."""
    if isinstance(error, HubloraError):
        return error.message
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _stale(head: RepoSnapshot, names: list[str]) -> list[str]:
    return [name for name in head.files if is_repo_file(name) and name not in names]


def fresh_copy(repo_id: str, commit: str, folder: Path) -> Path:
    """Download the layout's files of a commit into a cache of its own below `folder`.

    The usual cache may answer with what was uploaded from this machine.

    Returns:
        The folder with the files.

    Raises:
        HubError: The Hub is away.
    """
    with translated(f"model {repo_id}", commit):
        copied = snapshot_download(
            repo_id, revision=commit, cache_dir=folder, allow_patterns=list(PATTERNS)
        )
    return Path(copied)


def recorded_hashes(repo_id: str, commit: str) -> dict[str, str]:
    """Return what the Hub recorded of each of the layout's files: 64 or 40 hexadecimal digits.

    Raises:
        HubError: The Hub is away.
    """
    with translated(f"model {repo_id}", commit):
        siblings = api().model_info(repo_id, revision=commit, files_metadata=True).siblings or []
    digests = {one.rfilename: one.lfs.sha256 if one.lfs else one.blob_id for one in siblings}
    return {name: digest for name, digest in digests.items() if digest and is_repo_file(name)}


def wrong_files(folder: Path, recorded: Mapping[str, str]) -> list[str]:
    """Return the files in `folder` that are missing or not what was recorded, sorted."""
    return sorted(
        name
        for name, digest in recorded.items()
        if not (folder / name).is_file() or _hash(folder / name, len(digest)) != digest
    )


def _hash(path: Path, digits: int) -> str:
    if digits == 64:
        return sha256_of(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
