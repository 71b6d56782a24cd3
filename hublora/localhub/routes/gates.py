"""Gated access, and likes."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import RedirectResponse, Response

from ..call import Call
from ..routing import Route
from ..store.access import Right
from ..store.errors import Malformed, NotThere


def ask(call: Call) -> Response | dict[str, Any]:
    """POST /{repo}/ask-access: a person asks for the files of a gated repo."""
    user = call.user()
    repo, _ = call.take_part(Right.KNOW)
    if not repo.gated:
        raise Malformed(f"{repo.name} is not gated.")
    fields = {key: values[0] for key, values in call.form().items()}
    status = call.store.gates.ask(repo, user, fields)
    if "text/html" in call.request.headers.get("accept", ""):
        return RedirectResponse(f"/{repo.path}", 303)
    return {"status": status}


def listing(call: Call) -> list[dict[str, Any]]:
    """GET …/user-access-request/{status}: `list_pending_access_requests` and its siblings."""
    repo = call.repo(Right.OWN)
    return [
        {
            "requestId": f"{repo.id}{row['user']:08x}",
            "user": {"user": row["name"], "fullname": row["fullname"], "email": None},
            "status": row["status"],
            "timestamp": row["created_at"],
            "fields": json.loads(row["fields"]) or None,
        }
        for row in call.store.gates.requests(repo, call.pieces["status"])
    ]


def answer(call: Call) -> dict[str, Any]:
    """POST …/user-access-request/handle: accept, reject, cancel."""
    repo, wanted = call.repo(Right.OWN), call.json()
    if wanted.get("user") is not None:
        user_id = call.store.people.find(str(wanted["user"]))["id"]
    else:
        user_id = _user_of(repo.id, str(wanted.get("requestId", "")))
    call.store.gates.answer(repo, user_id, wanted.get("status"))
    return {}


def grant(call: Call) -> dict[str, Any]:
    """POST …/user-access-request/grant: `grant_access`."""
    repo = call.repo(Right.OWN)
    user = call.store.people.find(str(call.json().get("user", "")))
    call.store.gates.grant(repo, user["id"])
    return {}


def _user_of(repo_id: str, request_id: str) -> int:
    try:
        return int(request_id.removeprefix(repo_id), 16)
    except ValueError as problem:
        raise NotThere("There is no such request.") from problem


def like(call: Call) -> dict[str, Any]:
    """POST, DELETE …/like: a person likes a repo, or no longer."""
    repo, _ = call.take_part()
    call.store.repos.like(repo, call.caller.user_id, call.request.method == "POST")
    return {}


def likers(call: Call) -> list[dict[str, Any]]:
    """GET …/likers: `list_repo_likers`."""
    return [
        {"user": row["name"], "fullname": row["fullname"], "avatarUrl": "", "type": "user"}
        for row in call.store.repos.likers(call.repo(Right.KNOW))
    ]


def liked(call: Call) -> list[dict[str, Any]]:
    """GET /api/users/{name}/likes: `list_liked_repos`, as far as the caller may know of them."""
    user = call.store.people.find(call.pieces["name"])
    return [
        {"repo": {"name": repo.name, "type": repo.kind}, "createdAt": moment}
        for repo, moment in call.store.repos.liked(user["id"])
        if call.store.right(repo, call.caller) >= Right.KNOW
    ]


_REQUESTS = "/api/{kind}/{repo}/user-access-request/"
ROUTES = [
    Route("POST", "/{prefix}{repo}/ask-access", ask),
    Route("POST", _REQUESTS + "handle", answer),
    Route("POST", _REQUESTS + "grant", grant),
    Route("GET", _REQUESTS + "{status}", listing),
    Route("POST DELETE", "/api/{kind}/{repo}/like", like),
    Route("GET", "/api/{kind}/{repo}/likers", likers),
    Route("GET", "/api/users/{name}/likes", liked),
]
