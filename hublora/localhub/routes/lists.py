"""Lists: all models, datasets or spaces that a caller may see."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from ..call import Call
from ..facts import View, summary
from ..routing import Route
from ..store.access import Right
from ..store.errors import Malformed
from ..store.search import MAX_PAGE, Query, search

MAX_WORDS = 32
MAX_TAGS = 64


def listing(call: Call) -> Response:
    """GET /api/{kind}: `list_models`, `list_datasets`, `list_spaces`."""
    if call.queries("apps"):
        raise Malformed("This Hub does not know apps: filter by tag, library or task instead.")
    if call.queries("inference", "inference_provider"):
        return paged(call, [], None)  # no provider serves anything from here
    query = read_query(call)
    page, cursor = search(call.store.database, call.store.repos, query, call.caller)
    expand = call.queries("expand", "expand[]")
    full, card = call.flag("full"), call.flag("cardData") or call.flag("full")
    entries = [summary(View(call.store, repo), expand, full, card) for repo in page]
    return paged(call, entries, cursor)


def read_query(call: Call, page: int = MAX_PAGE, in_text: bool = False) -> Query:
    """Return the search that the address asks for, by default with `page` results."""
    if set(call.request.query_params) & {"datasets", "models", "linked"} and call.kind == "space":
        tags = [f"{k}:{v}" for k in ("dataset", "model") for v in call.queries(f"{k}s")]
    else:
        tags = []
    for given in call.queries("filter", "filter[]", "tags"):
        tags += [part for part in given.split(",") if part]
    words = [word for text in call.queries("search") for word in text.split()]
    if len(words) > MAX_WORDS or len(tags) > MAX_TAGS:
        raise Malformed(
            f"A search has at most {MAX_WORDS} words and {MAX_TAGS} tags,"
            f" got {len(words)} and {len(tags)}."
        )
    gated = {"true": True, "false": False}.get(call.query("gated").lower())
    return Query(
        kind=call.kind,
        author=call.query("author") or None,
        words=tuple(words),
        in_text=in_text,
        tags=tuple(tags),
        pipeline_tag=call.query("pipeline_tag") or None,
        gated=gated,
        parameters=_span(call.query("num_parameters")),
        order=call.query("sort") or "lastModified",
        ascending=call.query("direction") == "1",
        limit=whole_number(call, "limit", page),
        cursor=call.query("cursor") or None,
    )


_BOUND = re.compile(r"(min|max):([0-9]{1,9}(?:\.[0-9]{1,6})?)([KMBT]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def _span(text: str) -> tuple[int, int] | None:
    """Return the least and the most of `min:6B,max:128B`, either of which may be missing."""
    if not text:
        return None
    bounds = {"min": 0, "max": 2**62}
    for part in text.split(","):
        match = _BOUND.fullmatch(part.strip())
        if match is None:
            raise Malformed(
                f"Invalid num_parameters '{text[:60]}': min:NUMBER and max:NUMBER are wanted,"
                " with K, M, B or T, for example min:500M,max:6B."
            )
        bounds[match[1].lower()] = int(Decimal(match[2]) * _UNITS[match[3].upper()])
    return bounds["min"], bounds["max"]


def whole_number(call: Call, name: str, default: int) -> int:
    """Return a query parameter that is a positive number."""
    text = call.query(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Malformed(f"Invalid {name}: a whole number is wanted.")
    return int(text)


def paged(call: Call, entries: Any, cursor: str | None) -> Response:
    """Return one page with the `Link` header that leads to the next."""
    headers = {}
    if cursor is not None:
        pairs = [p for p in call.request.query_params.multi_items() if p[0] != "cursor"]
        path = call.request.scope["raw_path"].decode("latin-1")
        following = f"{call.origin}{path}?{urlencode([*pairs, ('cursor', cursor)])}"
        headers["Link"] = f'<{following}>; rel="next"'
    return JSONResponse(entries, headers=headers)


def own_repos(call: Call) -> list[dict[str, Any]]:
    """GET /api/settings/repositories, or of an organisation: `list_user_repos`."""
    user = call.user()
    owner = call.pieces.get("name") or str(user.name)
    found = call.store.repos.owned_by(owner)
    if not found:
        call.store.people.find(owner)
    seen = [repo for repo in found if call.store.right(repo, user) >= Right.OWN]
    views = [(repo, View(call.store, repo).used_storage()) for repo in seen]
    total = sum(size for _, size in views) or 1
    return [
        {
            "id": repo.name,
            "type": repo.kind,
            "updatedAt": repo.modified_at,
            "visibility": "private" if repo.private else "public",
            "storage": size,
            "storagePercent": 100 * size / total,
        }
        for repo, size in views
    ]


def tags_by_type(call: Call) -> dict[str, Any]:
    """GET /api/models-tags-by-type, …: `get_model_tags`, `get_dataset_tags`."""
    groups: dict[str, list[dict[str, str]]] = {}
    for tag in call.store.repos.public_tags(call.pieces["kind"].removesuffix("s")):
        group, colon, label = tag.partition(":")
        kind = group if colon else "other"
        groups.setdefault(kind, []).append({"id": tag, "label": label or tag, "type": kind})
    return groups


ROUTES = [
    Route("GET", "/api/{kind}", listing),
    Route("GET", "/api/{kind}-tags-by-type", tags_by_type),
    Route("GET", "/api/settings/repositories", own_repos),
    Route("GET", "/api/organizations/{name}/settings/repositories", own_repos),
]
