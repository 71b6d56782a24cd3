"""Searching the register: filters, order and pages, seen with the eyes of one caller."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from .database import Database
from .errors import Malformed
from .people import Caller
from .repos import Repo, Repos

# What `sort` of the API means here. Trending is likes: nobody's clicks are followed.
ORDERS = {
    "lastModified": "modified_at",
    "createdAt": "created_at",
    "downloads": "downloads",
    "likes": "likes",
    "trendingScore": "likes",
}
MAX_PAGE = 1000


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        kind: model, dataset or space.
        author: The owner's name.
        words: Each is somewhere in the name or in the card's metadata, whatever its case.
        in_text: Whether a word may be in the card's text as well.
        tags: All of them are there.
        pipeline_tag: The task.
        gated: Whether it is.
        parameters: The least and the most numbers that a model's weights hold.
        order: A key of `ORDERS`.
        ascending: Whether the least comes first.
        limit: The most to return, at most `MAX_PAGE`.
        cursor: Cursor that the page before returned; None for the first page.
    """

    kind: str
    author: str | None = None
    words: tuple[str, ...] = ()
    in_text: bool = False
    tags: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    gated: bool | None = None
    parameters: tuple[int, int] | None = None
    order: str = "lastModified"
    ascending: bool = False
    limit: int = MAX_PAGE
    cursor: str | None = None


def search(
    database: Database, repos: Repos, query: Query, caller: Caller
) -> tuple[list[Repo], str | None]:
    """Return one page of what the caller may see, and the cursor of the next.

    Raises:
        Malformed: The order or the cursor is not one.
    """
    if query.order not in ORDERS:
        raise Malformed(f"Invalid sort: one of {', '.join(ORDERS)} is wanted.")
    column = ORDERS[query.order]
    where, values = _conditions(query, caller)
    if query.cursor:
        last = _decode_cursor(query.cursor)
        sign = ">" if query.ascending else "<"
        where.append(f"({column}, id) {sign} (?, ?)")
        values += last
    way = "ASC" if query.ascending else "DESC"
    limit = max(1, min(query.limit, MAX_PAGE))
    rows = database.rows(
        f"SELECT * FROM repos WHERE {' AND '.join(where)}"
        f" ORDER BY {column} {way}, id {way} LIMIT ?",
        *values,
        limit + 1,
    )
    page = repos.with_tags(rows[:limit])
    following = None
    if len(rows) > limit:
        following = _encode_cursor([rows[limit - 1][column], rows[limit - 1]["id"]])
    return page, following


def _conditions(query: Query, caller: Caller) -> tuple[list[str], list[Any]]:
    where: list[str] = ["kind = ?"]
    values: list[Any] = [query.kind]
    visible, names = _visible(caller)
    where.append(visible)
    values += names
    if query.author:
        where.append("owner = ?")
        values.append(query.author)
    text = "metadata || char(10) || words" if query.in_text else "metadata"
    searched = f"COALESCE((SELECT {text} FROM repo_texts WHERE repo = repos.id), '')"
    for word in query.words:
        where.append(f"name || char(10) || {searched} LIKE ? ESCAPE '\\'")
        values.append("%" + "".join(f"\\{c}" if c in "%_\\" else c for c in word) + "%")
    for tag in query.tags:
        where.append("id IN (SELECT repo FROM repo_tags WHERE tag = ?)")
        values.append(tag)
    if query.pipeline_tag:
        where.append("pipeline_tag = ?")
        values.append(query.pipeline_tag)
    if query.gated is not None:
        where.append("gated != ''" if query.gated else "gated = ''")
    if query.parameters is not None:
        where.append("parameters BETWEEN ? AND ?")
        values += list(query.parameters)
    return where, values


def _visible(caller: Caller) -> tuple[str, list[Any]]:
    """Return the condition for repos that the caller may know of."""
    if not caller.known:
        return "private = 0", []
    if caller.role == "fineGrained":
        return "(private = 0 OR id = ?)", [caller.only_repo]
    names = [caller.name, *caller.organisations]
    return f"(private = 0 OR owner IN ({','.join('?' * len(names))}))", names


def _encode_cursor(place: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _decode_cursor(cursor: str) -> list[Any]:
    try:
        value, repo_id = json.loads(base64.urlsafe_b64decode(cursor[:500]))
    except (ValueError, TypeError) as problem:
        raise Malformed("Invalid cursor.") from problem
    if not isinstance(value, str | int) or not isinstance(repo_id, str):
        raise Malformed("Invalid cursor.")
    return [value, repo_id]
