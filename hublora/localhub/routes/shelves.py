"""Pages of collections: a list of them, and what is on one."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..call import Call
from ..routing import Route
from ..store.errors import RepoNotFound
from .collections import shows, visible
from .lists import whole_number
from .pages import cover, page

SHOWN = 50


def list_page(call: Call) -> Response:
    """GET /collections: all that the reader may see, last changed first."""
    skip = whole_number(call, "cursor", 0)
    found = call.store.collections.page(
        call.caller, call.queries("owner"), [], "lastModified", skip, SHOWN + 1
    )
    return page(
        call,
        "collections",
        collections=found[:SHOWN],
        following=f"?cursor={skip + SHOWN}" if len(found) > SHOWN else None,
    )


def collection_page(call: Call) -> Response:
    """GET /collections/{slug}: its repos with their notes; what cannot be shown is left out."""
    found = visible(call)
    entries: list[dict[str, Any]] = []
    for item in found.items:
        if not shows(call, item):
            continue
        try:
            repo = call.store.repos.find(item.kind, item.target)
        except RepoNotFound:  # a paper, or another collection: only its name is known here
            entries.append({"repo": None, "name": item.target, "note": item.note})
        else:
            entries.append({"repo": repo, "cover": cover(repo, call.origin), "note": item.note})
    return page(call, "collection", collection=found, entries=entries)


ROUTES = [
    Route("GET", "/collections", list_page),
    Route("GET", "/collections/{repo}", collection_page),
]
