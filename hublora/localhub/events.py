"""What webhooks are told: the payloads of https://huggingface.co/docs/hub/webhooks, version 3."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .store.access import Right
from .store.discussions import Discussion, Event
from .store.people import Caller
from .store.repos import Repo

if TYPE_CHECKING:
    from .call import Call


def announce(
    call: Call,
    repo: Repo,
    scope: str,
    action: str,
    *,
    discussion: Discussion | None = None,
    comment: Event | None = None,
    **facts: Any,
) -> None:
    """Tell every webhook that watches a repo, and whose owner may read it, what happened.

    Args:
        call: The request that did it.
        repo: State of the repo after the event, or before it if it was deleted.
        scope: repo, repo.content, repo.config, discussion or discussion.comment.
        action: create, update, move or delete.
        discussion: Discussion of the event; None for other events.
        comment: The words that were added or changed.
        facts: `updatedRefs` or `updatedConfig`.
    """
    if call.delivery is None:
        return
    for webhook in call.store.webhooks.watching(repo, scope.partition(".")[0]):
        watcher = _caller(call, webhook.user)
        if call.store.right(repo, watcher) < Right.READ:
            continue
        payload = {
            "event": {"action": action, "scope": scope},
            "repo": _repo(call, repo, scope),
            **facts,
            "webhook": {"id": webhook.id, "version": 3},
        }
        if discussion is not None:
            payload["discussion"] = _discussion(call, repo, discussion)
        if comment is not None:
            payload["comment"] = _comment(call, repo, discussion, comment)
        call.delivery.send(webhook, payload)


@contextlib.contextmanager
def refs(call: Call, repo: Repo) -> Iterator[None]:
    """Announce which refs of a repo have moved while the block ran."""
    watched = call.delivery is not None and call.store.webhooks.watching(repo, "repo")
    before = call.git(repo).targets() if watched else {}
    yield
    if not watched:
        return
    after = call.git(repo).targets()
    changed = [
        {"ref": ref, "oldSha": _commit(before.get(ref)), "newSha": _commit(after.get(ref))}
        for ref in sorted(before.keys() | after.keys())
        if before.get(ref) != after.get(ref)
    ]
    if changed:
        newest = call.store.repos.by_id(repo.id)
        announce(call, newest, "repo.content", "update", updatedRefs=changed)


def _commit(target: tuple[str, str] | None) -> str | None:
    return target[1] if target else None


def _caller(call: Call, user_id: int) -> Caller:
    """Return a user as who asks with a token for everything that is theirs."""
    return Caller(
        name=call.store.people.name_of(user_id),
        user_id=user_id,
        role="write",
        organisations=call.store.people.organisations(user_id),
    )


def _repo(call: Call, repo: Repo, scope: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "type": repo.kind,
        "name": repo.name,
        "id": repo.id,
        "private": repo.private,
        "url": {
            "web": f"{call.origin}/{repo.path}",
            "api": f"{call.origin}/api/{repo.kind}s/{repo.name}",
        },
        "owner": {"id": str(call.store.people.find(repo.owner)["id"])},
    }
    return facts | ({"headSha": repo.head, "tags": list(repo.tags)} if "repo" in scope else {})


def _discussion(call: Call, repo: Repo, found: Discussion) -> dict[str, Any]:
    place = f"{repo.name}/discussions/{found.number}"
    facts: dict[str, Any] = {
        "id": f"{repo.id}-{found.number}",
        "title": found.title,
        "url": {
            "web": f"{call.origin}/{repo.path}/discussions/{found.number}",
            "api": f"{call.origin}/api/{repo.kind}s/{place}",
        },
        "status": found.status,
        "author": {"id": _author(call, found.author)},
        "num": found.number,
        "isPullRequest": found.is_pull_request,
    }
    return facts | ({"changes": {"base": found.base}} if found.is_pull_request else {})


def _comment(
    call: Call, repo: Repo, discussion: Discussion | None, comment: Event
) -> dict[str, Any]:
    number = discussion.number if discussion else 0
    return {
        "id": comment.id,
        "author": {"id": _author(call, comment.author)},
        "content": comment.data["latest"]["raw"],
        "hidden": comment.data["hidden"],
        "url": {"web": f"{call.origin}/{repo.path}/discussions/{number}#{comment.id}"},
    }


def _author(call: Call, name: str) -> str:
    """Return the id of who said something; nobody has it any more if they left."""
    row = call.store.people.known(name)
    return str(row["id"]) if row else ""
