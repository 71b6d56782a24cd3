"""Discussions and pull requests by the API."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from .. import events, markdown
from ..addresses import file_address, page_address
from ..call import Call
from ..routing import Route
from ..store.access import Right
from ..store.discussions import Discussion, Event
from ..store.errors import Conflict, Forbidden, NotThere
from ..store.git import DEFAULT_BRANCH
from ..store.merging import diff_text
from ..store.repos import Repo
from .lists import whole_number

PAGE = 50


def listing(call: Call) -> dict[str, Any]:
    """GET …/discussions: `get_repo_discussions`."""
    repo = call.repo()
    skip = whole_number(call, "p", 0) * PAGE
    found, count = call.store.discussions.page(
        repo,
        kind=call.query("type", "all"),
        status=call.query("status", "all"),
        author=call.query("author") or None,
        skip=skip,
        limit=PAGE,
    )
    return {"discussions": [_summary(repo, d) for d in found], "count": count, "start": skip}


def create(call: Call) -> dict[str, Any]:
    """POST …/discussions: `create_discussion`, `create_pull_request`."""
    repo, author = call.take_part()
    wanted = call.json()
    made = call.store.discussions.open(
        repo,
        wanted.get("title"),
        wanted.get("description"),
        author,
        pull_request=bool(wanted.get("pullRequest")),
        # As on the Hub: a proposal without commits is a draft, one made by a commit is open.
        status="draft" if wanted.get("pullRequest") else "open",
    )
    events.announce(call, repo, "discussion", "create", discussion=made, comment=made.events[0])
    return {"num": made.number, "pullRequest": made.is_pull_request}


def details(call: Call) -> dict[str, Any]:
    """GET …/discussions/{n}: `get_discussion_details`, with the diff of a pull request."""
    repo, found = found_discussion(call)
    facts = _summary(repo, found) | {
        "events": _events(call, repo, found.events),
        "filesWithConflicts": None,
    }
    if not found.is_pull_request:
        return facts
    git = call.git(repo)
    facts["filesWithConflicts"] = call.store.discussions.conflicting_files(git, found)
    facts["changes"] = {"base": found.base, "mergeCommitId": found.merge_commit}
    if call.flag("diff"):
        against = git.commit(found.merge_commit).parents[0] if found.merge_commit else None
        facts["diff"] = diff_text(
            git, against or git.resolve(DEFAULT_BRANCH), git.resolve(found.ref)
        )
    return facts


def comment(call: Call) -> dict[str, Any]:
    """POST …/comment: `comment_discussion`."""
    repo, author = call.take_part()
    _, found = found_discussion(call)
    said = call.store.discussions.comment(repo, found, call.json().get("comment"), author)
    _comment_told(call, repo, found, said, "create")
    return {"newMessage": _event(call, repo, said)}


def edit(call: Call) -> dict[str, Any]:
    """POST …/comment/{id}/edit: `edit_discussion_comment`; only its author may."""
    repo, author = call.take_part()
    _, found = found_discussion(call)
    event = _its_own(found, call.pieces["event"], author)
    text = call.json().get("content")
    changed = call.store.discussions.edit(repo, found, event.id, text, author)
    _comment_told(call, repo, found, changed, "update")
    return {"updatedComment": _event(call, repo, changed)}


def hide(call: Call) -> dict[str, Any]:
    """POST …/comment/{id}/hide: `hide_discussion_comment`; its author or the repo's owner."""
    repo, author = call.take_part()
    _, found = found_discussion(call)
    event_id = call.pieces["event"]
    if call.store.right(repo, call.caller) < Right.WRITE:
        _its_own(found, event_id, author)
    changed = call.store.discussions.hide(found, event_id, author)
    _comment_told(call, repo, found, changed, "update")
    return {"updatedComment": _event(call, repo, changed)}


def rename(call: Call) -> dict[str, Any]:
    """POST …/title: `rename_discussion`."""
    repo, found, author = _in_charge(call)
    event = call.store.discussions.rename(repo, found, call.json().get("title"), author)
    _change_told(call, repo, found)
    return {"newTitle": _event(call, repo, event)}


def set_status(call: Call) -> dict[str, Any]:
    """POST …/status: `change_discussion_status`."""
    repo, found, author = _in_charge(call)
    wanted = call.json()
    if wanted.get("comment"):
        said = call.store.discussions.comment(repo, found, wanted["comment"], author)
        _comment_told(call, repo, found, said, "create")
    event = call.store.discussions.set_status(repo, found, wanted.get("status"), author)
    _change_told(call, repo, found)
    return {"newStatus": _event(call, repo, event)}


def merge(call: Call) -> dict[str, Any]:
    """POST …/merge: `merge_pull_request`."""
    repo, found = call.repo(Right.WRITE), found_discussion(call)[1]
    author, words = str(call.caller.name), call.json().get("comment")
    if not found.is_pull_request:
        raise Conflict("Only a pull request can be merged.")
    with events.refs(call, repo):
        oid = call.store.discussions.merge(repo, found, author)
    _change_told(call, repo, found)
    if words:
        said = call.store.discussions.comment(repo, found, words, author)
        _comment_told(call, repo, found, said, "create")
    return {"oid": oid}


def _change_told(call: Call, repo: Repo, found: Discussion) -> None:
    now = call.store.discussions.find(repo, found.number)
    events.announce(call, repo, "discussion", "update", discussion=now)


def _comment_told(call: Call, repo: Repo, found: Discussion, said: Event, action: str) -> None:
    scope = "discussion.comment"
    events.announce(call, repo, scope, action, discussion=found, comment=said)


def found_discussion(call: Call) -> tuple[Repo, Discussion]:
    """Return the repo and the discussion that the address names."""
    number = call.pieces["number"]
    repo = call.repo()
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise NotThere("There is no such discussion.")
    return repo, call.store.discussions.find(repo, int(number))


def _in_charge(call: Call) -> tuple[Repo, Discussion, str]:
    """Return repo, discussion and caller, who opened it or may write to the repo."""
    repo, author = call.take_part()
    _, found = found_discussion(call)
    if found.author != author and call.store.right(repo, call.caller) < Right.WRITE:
        raise Forbidden("Only its author or the repo's owner may do this.")
    return repo, found, author


def _its_own(found: Discussion, event_id: str, author: str) -> Event:
    for event in found.events:
        if event.id == event_id and event.kind == "comment":
            if event.author != author:
                raise Forbidden("Only its author may change a comment.")
            return event
    raise NotThere("There is no such comment.")


def _summary(repo: Repo, found: Discussion) -> dict[str, Any]:
    return {
        "num": found.number,
        "title": found.title,
        "status": found.status,
        "author": {"name": found.author, "type": "user", "avatarUrl": ""},
        "createdAt": found.created_at,
        "isPullRequest": found.is_pull_request,
        "repo": {"name": repo.name, "type": repo.kind},
        "numComments": sum(event.kind == "comment" for event in found.events),
    }


def _event(call: Call, repo: Repo, event: Event) -> dict[str, Any]:
    return _events(call, repo, [event])[0]


def _events(call: Call, repo: Repo, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return events as `deserialize_event` of huggingface_hub reads them."""
    pairs = zip(events, comments_html(call, repo, events), strict=True)
    return [_wire(event, html) for event, html in pairs]


def _wire(event: Event, html: str) -> dict[str, Any]:
    data = event.data
    if event.kind == "comment":
        latest = data["latest"] | {"html": html}
        data = data | {"latest": latest, "numEdits": len(data["history"])}
    return {
        "id": event.id,
        "type": event.kind,
        "createdAt": event.created_at,
        "author": {"name": event.author, "type": "user", "avatarUrl": ""},
        "data": data,
    }


def comments_html(call: Call, repo: Repo, events: Sequence[Event]) -> list[str]:
    """Return the comment of each event, if it is one, as HTML that cannot do harm.

    Relative addresses mean files of `main`.
    """
    texts = [event.data["latest"]["raw"] if event.kind == "comment" else "" for event in events]
    return markdown.render_all_within_limits(
        texts,
        file=partial(file_address, repo.path, DEFAULT_BRANCH),
        page=partial(page_address, repo.path, DEFAULT_BRANCH),
        origin=call.origin,
    )


_ONE = "/api/{kind}/{repo}/discussions/{number}"
ROUTES = [
    Route("GET", "/api/{kind}/{repo}/discussions", listing),
    Route("POST", "/api/{kind}/{repo}/discussions", create),
    Route("GET", _ONE, details),
    Route("POST", _ONE + "/comment", comment),
    Route("POST", _ONE + "/comment/{event}/edit", edit),
    Route("POST", _ONE + "/comment/{event}/hide", hide),
    Route("POST", _ONE + "/title", rename),
    Route("POST", _ONE + "/status", set_status),
    Route("POST", _ONE + "/merge", merge),
]
