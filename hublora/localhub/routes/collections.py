"""Collections by the API."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from .. import problems
from ..call import Call, find_repo
from ..routing import Route
from ..store.access import Right
from ..store.collections import Collection, Item
from ..store.errors import AlreadyExists, Forbidden, NotThere, RepoNotFound
from .lists import paged, whole_number

PAGE = 100


def listing(call: Call) -> Response:
    """GET /api/collections: `list_collections`. Entries carry no `position`: the client adds it."""
    limit = max(1, min(whole_number(call, "limit", PAGE), PAGE))
    skip = whole_number(call, "cursor", 0)
    items = call.queries("item")
    if not all(_may_know(call, item) for item in items):
        return paged(call, [], None)
    found = call.store.collections.page(
        call.caller,
        call.queries("owner"),
        items,
        call.query("sort"),
        skip,
        limit + 1,
    )
    following = str(skip + limit) if len(found) > limit else None
    return paged(call, [_wire(call, each, short=True) for each in found[:limit]], following)


def _may_know(call: Call, item: str) -> bool:
    """Tell whether the caller may know of what `models/me/lora` names: else nothing lists it."""
    kind, _, target = item.partition("/")
    return shows(call, Item("", kind.removesuffix("s"), target, None, 0))


def details(call: Call) -> dict[str, Any]:
    """GET /api/collections/{slug}: `get_collection`."""
    return _wire(call, visible(call))


def create(call: Call) -> Response | dict[str, Any]:
    """POST /api/collections: `create_collection`; 409 carries the slug of the one there is."""
    wanted = call.json()
    owner = _may_own(call, str(wanted.get("namespace") or call.user().name))
    private = bool(wanted.get("private"))
    try:
        made = call.store.collections.create(
            owner, wanted.get("title"), wanted.get("description"), private
        )
    except AlreadyExists as problem:
        return problems.reply(problem, slug=problem.name)
    return _wire(call, made)


def update(call: Call) -> dict[str, Any]:
    """PATCH /api/collections/{slug}: `update_collection_metadata`."""
    slug = _owned(call).slug
    return {"success": True, "data": _wire(call, call.store.collections.update(slug, call.json()))}


def delete(call: Call) -> dict[str, Any]:
    """DELETE /api/collections/{slug}: `delete_collection`."""
    call.store.collections.delete(_owned(call).slug)
    return {"success": True}


def add_item(call: Call) -> dict[str, Any]:
    """POST …/items: `add_collection_item`; only what the caller can see."""
    wanted, slug = call.json(), _owned(call).slug
    item = wanted.get("item")
    kind, target = (item.get("type"), item.get("id")) if isinstance(item, dict) else (None, None)
    if kind in ("model", "dataset", "space"):
        repo = find_repo(call.store, kind, str(target))
        if call.store.right(repo, call.caller) < Right.KNOW:
            raise RepoNotFound(str(target))
        target = repo.name
    return _wire(call, call.store.collections.add(slug, kind, target, wanted.get("note")))


def update_item(call: Call) -> dict[str, Any]:
    """PATCH …/items/{item}: `update_collection_item`."""
    call.store.collections.update_item(_owned(call).slug, call.pieces["item"], call.json())
    return {"success": True}


def delete_item(call: Call) -> dict[str, Any]:
    """DELETE …/items/{item}: `delete_collection_item`."""
    call.store.collections.remove(_owned(call).slug, call.pieces["item"])
    return {"success": True}


def visible(call: Call) -> Collection:
    """Return the collection that the address names, if the caller may see it."""
    found = call.store.collections.find(call.pieces["repo"])
    if found.private and not _owns(call, found.owner):
        raise NotThere(f"There is no collection {found.slug}.")
    return found


def _owned(call: Call) -> Collection:
    call.user()
    found = visible(call)
    _may_own(call, found.owner)
    return found


def _owns(call: Call, owner: str) -> bool:
    if call.caller.role == "fineGrained" or not call.caller.known:
        return False
    names = [str(call.caller.name), *call.caller.organisations]
    return owner.lower() in [name.lower() for name in names]


def _may_own(call: Call, owner: str) -> str:
    user = call.user()
    roles = {str(user.name): "admin", **user.organisations}
    for name, role in roles.items():
        if name.lower() == owner.lower() and role != "read" and user.role == "write":
            return name
    raise Forbidden(f"You don't have the rights to change collections of {owner}.")


def _wire(call: Call, found: Collection, short: bool = False) -> dict[str, Any]:
    """Return a collection as `Collection` of huggingface_hub reads it.

    A repo that became private after it was listed shows to nobody else.
    """
    facts: dict[str, Any] = {
        "slug": found.slug,
        "title": found.title,
        "description": found.description,
        "owner": found.owner,
        "private": found.private,
        "theme": found.theme,
        "upvotes": 0,
        "lastUpdated": found.modified_at,
        "items": [_item(item) for item in found.items if shows(call, item)],
    }
    return facts if short else facts | {"position": 0}


def _item(item: Item) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "_id": item.id,
        "id": item.target,
        "type": item.kind,
        "position": item.position,
    }
    return facts | {"note": {"text": item.note, "html": ""}} if item.note else facts


def shows(call: Call, item: Item) -> bool:
    """Tell whether the caller may know of what an entry stands for."""
    if item.kind not in ("model", "dataset", "space"):
        return True
    try:
        repo = call.store.repos.find(item.kind, item.target)
    except RepoNotFound:
        return False
    return call.store.right(repo, call.caller) >= Right.KNOW


_ONE = "/api/collections/{repo}"
ROUTES = [
    Route("GET", "/api/collections", listing),
    Route("POST", "/api/collections", create),
    Route("GET", _ONE, details),
    Route("PATCH", _ONE, update),
    Route("DELETE", _ONE, delete),
    Route("POST", _ONE + "/items", add_item),
    Route("PATCH", _ONE + "/items/{item}", update_item),
    Route("DELETE", _ONE + "/items/{item}", delete_item),
]
