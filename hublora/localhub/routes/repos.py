"""Repos as such: create, delete, move, settings, what is known of them."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from .. import events, problems
from ..call import Call, find_repo
from ..facts import View, details
from ..routing import Route
from ..store import cards
from ..store.access import Right, require
from ..store.errors import AlreadyExists, Forbidden, Malformed, NoCredentials


def create(call: Call) -> Response | dict[str, Any]:
    """POST /api/repos/create: `create_repo`. An existing repo answers 409 with its address."""
    wanted = call.json()
    kind, owner, name = _named(call, wanted)
    _may_own(call, owner)
    try:
        repo = call.store.create_repo(
            kind,
            owner,
            name,
            private=_private(wanted) or False,
            sdk=wanted.get("sdk"),
            author=call.user().name,
        )
    except AlreadyExists as problem:
        return problems.reply(problem, **_address(call, kind, problem.name))
    events.announce(call, repo, "repo", "create")
    return {**_address(call, kind, repo.name), "id": repo.id}


def delete(call: Call) -> dict[str, Any]:
    """DELETE /api/repos/delete: `delete_repo`."""
    kind, owner, name = _named(call, call.json())
    repo = _own(call, kind, f"{owner}/{name}")
    call.store.delete_repo(repo)
    events.announce(call, repo, "repo", "delete")
    return {}


def move(call: Call) -> dict[str, Any]:
    """POST /api/repos/move: `move_repo`. The old name goes on leading to the repo."""
    wanted = call.json()
    kind = wanted.get("type") or "model"
    repo = _own(call, kind, str(wanted.get("fromRepo", "")))
    owner, _, name = str(wanted.get("toRepo", "")).partition("/")
    _may_own(call, owner)
    call.store.repos.move(repo, _proper_owner(call, owner), name)
    events.announce(call, call.store.repos.by_id(repo.id), "repo", "move")
    return {}


def duplicate(call: Call) -> Response | dict[str, Any]:
    """POST …/duplicate: `duplicate_repo`."""
    source, wanted = call.repo(Right.READ), call.json()
    owner, _, name = str(wanted.get("repository") or "").partition("/")
    _may_own(call, owner)
    private = _private(wanted)
    try:
        made = call.store.duplicate_repo(
            source,
            _proper_owner(call, owner),
            name,
            private=source.private if private is None else private,
            sdk=source.sdk,
        )
    except AlreadyExists as problem:
        return problems.reply(problem, **_address(call, source.kind, problem.name))
    events.announce(call, made, "repo", "create")
    return _address(call, source.kind, made.name)


def settings(call: Call) -> dict[str, Any]:
    """PUT …/settings: `update_repo_settings`."""
    repo, wanted = call.repo(Right.OWN), call.json()
    gated = wanted.get("gated")
    call.store.repos.update(
        repo,
        private=_private(wanted),
        gated=("" if gated is False else str(gated)) if gated is not None else None,
    )
    now = call.store.repos.by_id(repo.id)
    changed = {} if now.private == repo.private else {"private": now.private}
    events.announce(call, now, "repo.config", "update", updatedConfig=changed)
    return {"private": now.private, "gated": now.gated or False}


def info(call: Call) -> dict[str, Any]:
    """GET /api/{kind}/{repo}[/revision/{rev}]: `model_info`, `dataset_info`, `space_info`."""
    repo = call.repo(Right.KNOW)
    view = View(call.store, repo, call.pieces.get("rev") or None, call.flag("blobs"))
    return details(view, call.queries("expand", "expand[]"))


def runtime(call: Call) -> dict[str, Any]:
    """GET /api/spaces/{repo}/runtime: `get_space_runtime`. Spaces are stored here, not run."""
    call.repo(Right.READ)
    return {"stage": "STOPPED", "hardware": {"current": None, "requested": None}, "storage": None}


def auth_check(call: Call) -> dict[str, Any]:
    """GET …/auth-check[/write]: `auth_check`."""
    call.repo(Right.WRITE if call.pieces.get("write") else Right.READ)
    return {}


def validate_yaml(call: Call) -> Response:
    """POST /api/validate-yaml: what `create_commit` asks before it sends a README."""
    wanted = call.json()
    content = wanted.get("content")
    if not isinstance(content, str) or len(content) > cards.MAX_README_BYTES:
        raise Malformed("The README is missing or too long.")
    errors, warnings = cards.problems(content, str(wanted.get("repoType") or "model"))
    status = 400 if errors else 200
    if call.request.headers.get("accept") == "text/plain":  # as `RepoCard.validate` asks
        told = [f"- Error: {error}" for error in errors] + [f"- Warning: {w}" for w in warnings]
        return PlainTextResponse("\n".join(told), status)
    body = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return JSONResponse(body, status)


validate_yaml.only_reads = True  # type: ignore[attr-defined]


def _named(call: Call, wanted: dict[str, Any]) -> tuple[str, str, str]:
    """Return kind, owner and name; without an owner it is the caller's own."""
    user = call.user()
    name = str(wanted.get("name") or "")
    owner, slash, short = name.partition("/")
    if not slash:
        owner, short = str(wanted.get("organization") or user.name), name
    return str(wanted.get("type") or "model"), _proper_owner(call, owner), short


def _proper_owner(call: Call, owner: str) -> str:
    """Return the owner's name as its owner writes it: names are equal whatever their case."""
    known = [str(call.user().name), *call.user().organisations]
    return next((name for name in known if name.lower() == owner.lower()), owner)


def _may_own(call: Call, owner: str) -> None:
    user = call.user()
    if user.role != "write":
        raise Forbidden("You need a token with the role 'write' to create repos.")
    if owner.lower() == str(user.name).lower():
        return
    roles = {name.lower(): role for name, role in user.organisations.items()}
    if roles.get(owner.lower()) not in ("admin", "write"):
        raise Forbidden(
            f'You don\'t have the rights to create a repo under the namespace "{owner}"'
        )


def _own(call: Call, kind: str, name: str) -> Any:
    if not call.caller.known:
        raise NoCredentials
    repo = find_repo(call.store, kind, name)
    require(repo, call.caller, Right.OWN, call.store.gates.consent(repo, call.caller))
    return repo


def _private(wanted: dict[str, Any]) -> bool | None:
    visibility, private = wanted.get("visibility"), wanted.get("private")
    if visibility is not None:
        if visibility not in ("public", "private", "protected"):
            raise Malformed("Invalid visibility: public or private is wanted.")
        return bool(visibility != "public")
    if private is not None and not isinstance(private, bool):
        raise Malformed("Invalid private: true or false is wanted.")
    return private


def _address(call: Call, kind: str, name: str) -> dict[str, Any]:
    prefix = "" if kind == "model" else f"{kind}s/"
    return {"url": f"{call.origin}/{prefix}{name}", "name": name}


ROUTES = [
    Route("POST", "/api/repos/create", create),
    Route("DELETE", "/api/repos/delete", delete),
    Route("POST", "/api/repos/move", move),
    Route("POST", "/api/{kind}/{repo}/duplicate", duplicate),
    Route("POST", "/api/validate-yaml", validate_yaml),
    Route("GET", "/api/{kind}/{repo}", info),
    Route("GET", "/api/{kind}/{repo}/revision/{rev}", info),
    Route("PUT", "/api/{kind}/{repo}/settings", settings),
    Route("GET", "/api/{kind}/{repo}/runtime", runtime),
    Route("GET", "/api/{kind}/{repo}/auth-check", auth_check),
    Route("GET", "/api/{kind}/{repo}/auth-check/{write}", auth_check),
]
