"""Pushes a folder as one commit: rights are checked before, checksums after."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    RepoUrl,
)

from hublora.errors import (
    AccessError,
    HubError,
    HubloraError,
    NotFoundError,
    PushError,
)
from hublora.hub.client import api, endpoint, is_offline, translated, without_bars
from hublora.hub.download import download
from hublora.hub.repo_layout import CARD, check_contents, is_repo_file, repo_files
from hublora.hub.resolve import RepoSnapshot, inspect_repo
from hublora.hub.token_owner import TokenOwner, forget_owner, token_owner
from hublora.hub.transport import repeated, words_of
from hublora.notebook import NotebookResult
from hublora.refs import RepoId, parse_repo_id


@dataclass(frozen=True)
class PushResult(NotebookResult):
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


def check_can_push(name: str, repo_type: str = "model") -> RepoId:
    """Parse a repo id and check, before any long work, that this token may push to it.

    Args:
        name: owner/name; a name alone is a repo of the token's owner.
        repo_type: "model" or "dataset".

    Raises:
        RefError: The id has not the form owner/name.
        AccessError: No token, a read-only one, or no right to that owner or repo.
        HubError: Offline, or the Hub cannot be reached.
    """
    repo_id = parse_repo_id(name if "/" in name else f"me/{name}")
    if is_offline():
        raise HubError(
            "HF_HUB_OFFLINE is set, so nothing can be pushed.",
            "Unset it, or leave --push-to-hub out.",
        )
    try:
        owner = token_owner()
        if "/" not in name:
            repo_id = parse_repo_id(f"{owner.name}/{name}")
        _check_owner(repo_id, owner)
    except AccessError:
        forget_owner()
        raise
    try:
        with translated(f"{repo_type} {repo_id}"):
            repeated(lambda: api().auth_check(repo_id, repo_type=repo_type, write=True))
    except NotFoundError:
        pass  # it will be created
    return repo_id


def _check_owner(repo_id: RepoId, person: TokenOwner) -> None:
    """Check what the token alone says about its rights to a repo, existing or not.

    Raises:
        AccessError: It may not write there.
    """
    if person.is_read_only:
        raise AccessError(f"The token of {person.name} may only read.", _token_hint())
    owner, repo_name = repo_id.split("/")
    owners = [person.name, *person.organisations]
    if owner not in owners:
        raise AccessError(
            f"{person.name} may not push to {owner}/….",
            f"Use one of: {', '.join(f'{name}/{repo_name}' for name in owners)}",
        )
    if not person.may_write(repo_id):
        raise AccessError(
            f"The fine-grained token of {person.name} may not write to {repo_id}.", _token_hint()
        )


def _token_hint() -> str:
    """Return how to create a token that may write and where to set it."""
    if "huggingface.co" in endpoint():
        where = f"Make one that may write at {endpoint()}/settings/tokens"
    else:
        where = "Make one that may write (on a Hub of your own: hublora hub token create NAME)"
    if os.environ.get("HF_TOKEN"):
        return f"{where} and put it into HF_TOKEN."
    return f"{where} and run: hf auth login"


def remote_card(repo_id: RepoId) -> str | None:
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
def push_folder(
    folder: Path, repo_id: RepoId, *, message: str, private: bool = False
) -> PushResult:
    """Upload the files of the repo layout in `folder` as one commit on main.

    Files of the layout that an earlier push added and that `folder` no longer has are deleted in
    the same commit; all other files in the repo stay.

    Raises:
        PushError: It did not complete; the folder is unchanged and the push can be repeated.
        AccessError: The token may not write there.
    """
    check_contents(folder)
    names = repo_files(folder)
    try:
        with translated(f"model {repo_id}"):
            return _commit(folder, repo_id, names, message, private)
    except AccessError as error:
        raise AccessError(error.message, _kept(error, folder, repo_id)) from error
    # Besides hublora's own: disk, network, and the client's errors about a broken upload.
    except (HubloraError, OSError, RuntimeError, ValueError) as error:
        raise PushError(
            f"The push to {repo_id} did not complete: {reason_for_push(error)}",
            _kept(error, folder, repo_id),
        ) from error


@contextmanager
def files_kept(folder: Path, repo_id: str) -> Iterator[None]:
    """Add to a Hub's refusal or failure that all files are kept, and how to push them later.

    Raises:
        HubError: As the block does.
    """
    try:
        yield
    except PushError:
        raise
    except HubError as error:
        raise type(error)(error.message, _kept(error, folder, repo_id)) from error


def _kept(error: Exception, folder: Path, repo_id: str) -> str:
    again = f"All files are kept; try again with: {push_command(folder, repo_id)}"
    hint = (error.hint if isinstance(error, HubloraError) else None) or ""
    if again in hint:
        return hint
    return f"{hint.rstrip('.')}. {again}" if hint else again


def push_command(folder: Path, repo_id: str) -> str:
    """Return the command line that pushes `folder`, quoted for a shell."""
    return shlex.join(["hublora", "push", str(folder), repo_id])


def _commit(
    folder: Path, repo_id: RepoId, names: list[str], message: str, private: bool
) -> PushResult:
    client = api()
    url: RepoUrl = repeated(
        lambda: client.create_repo(repo_id, private=private or None, exist_ok=True)
    )
    head = inspect_repo(repo_id)
    operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in names]
    operations += [CommitOperationDelete(name) for name in _stale(head, names)]
    commit = client.create_commit(
        repo_id, operations, commit_message=message, parent_commit=head.commit
    )
    return PushResult(repo_id, commit.oid, str(url), tuple(names))


def reason_for_push(error: BaseException) -> str:
    """Return what an error says in one line; its cause's words where it only wraps one."""
    if isinstance(error, HubloraError):
        return error.message
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return words_of(error)


def _stale(head: RepoSnapshot, names: list[str]) -> list[str]:
    return [name for name in head.files if is_repo_file(name) and name not in names]
