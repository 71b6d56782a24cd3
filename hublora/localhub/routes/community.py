"""Pages about what people say: discussions and pull requests."""

from __future__ import annotations

from starlette.responses import Response

from ..call import Call
from ..changes import changes
from ..routing import Route
from ..store.discussions import Event
from ..store.git import DEFAULT_BRANCH
from .discussions import comments_html, found_discussion
from .lists import whole_number
from .pages import page, speaks, writes

SHOWN = 50


def list_page(call: Call) -> Response:
    """GET /{repo}/discussions: all of them, newest first."""
    repo = call.repo()
    skip = whole_number(call, "cursor", 0)
    found, count = call.store.discussions.page(
        repo, kind="all", status=call.query("status", "all"), author=None, skip=skip, limit=SHOWN
    )
    following = f"?cursor={skip + SHOWN}" if skip + len(found) < count else None
    return page(
        call,
        "discussions",
        repo=repo,
        tab="community",
        discussions=found,
        following=following,
        speaks=speaks(call, repo),
    )


def discussion_page(call: Call) -> Response:
    """GET /{repo}/discussions/{number}: what was said, and what a pull request changes."""
    repo, found = found_discussion(call)
    different, clashing = [], []
    if found.is_pull_request:
        git = call.git(repo)
        clashing = call.store.discussions.conflicting_files(git, found)
        merged = git.commit(found.merge_commit).parents[0] if found.merge_commit else None
        different = changes(git, merged or git.resolve(DEFAULT_BRANCH), git.resolve(found.ref))
    said = comments_html(call, repo, found.events)
    return page(
        call,
        "discussion",
        repo=repo,
        tab="community",
        discussion=found,
        events=[_shown(event, html) for event, html in zip(found.events, said, strict=True)],
        changes=different,
        clashing=clashing,
        speaks=speaks(call, repo),
        writes=writes(call, repo),
    )


def _shown(event: Event, html: str) -> dict[str, str]:
    """Return an event as the page tells it."""
    data = event.data
    said = {
        "comment": lambda: "",
        "commit": lambda: f"added the commit “{data['subject']}”",
        "status-change": lambda: f"changed the status to {data['status']}",
        "title-change": lambda: f"changed the title from “{data['from']}” to “{data['to']}”",
    }[event.kind]()
    return {"author": event.author, "date": event.created_at, "said": said, "html": html}


ROUTES = [
    Route("GET", "/{prefix}{repo}/discussions", list_page),
    Route("GET", "/{prefix}{repo}/discussions/{number}", discussion_page),
]
