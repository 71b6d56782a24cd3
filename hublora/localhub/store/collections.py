"""Collections: titled lists of repos with a note each."""

from __future__ import annotations

import re
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any

from .database import Database
from .disk import now
from .errors import AlreadyExists, Malformed, NotThere
from .people import Caller

ID_LETTERS = 24
MAX_TITLE = 60
MAX_DESCRIPTION = 150
MAX_NOTE = 500
THEMES = ("orange", "blue", "green", "purple", "pink", "indigo")
KINDS = ("model", "dataset", "space", "paper", "collection")


@dataclass(frozen=True)
class Item:
    """One entry of a collection."""

    id: str
    kind: str
    target: str
    note: str | None
    position: int


@dataclass(frozen=True)
class Collection:
    """A collection with its entries in order."""

    slug: str
    owner: str
    title: str
    description: str
    private: bool
    theme: str
    created_at: str
    modified_at: str
    items: tuple[Item, ...]


class Collections:
    """Everything about collections; who may do it is asked by the routes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, owner: str, title: object, description: object, private: bool) -> Collection:
        """Make an empty collection.

        Raises:
            AlreadyExists: The owner has one of that title; `name` is its slug.
        """
        good = _short(title, "title", MAX_TITLE, least=1)
        taken = self._database.row(
            "SELECT slug FROM collections WHERE owner = ? AND title = ?", owner, good
        )
        if taken:
            raise AlreadyExists(f"You already have a collection '{good}'.", taken["slug"])
        slug, moment = _slug(owner, good, secrets.token_hex(ID_LETTERS // 2)), now()
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO collections VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    slug,
                    owner,
                    good,
                    _short(description or "", "description", MAX_DESCRIPTION),
                    private,
                    THEMES[0],
                    moment,
                    moment,
                ),
            )
        return self.find(slug)

    def find(self, slug: str) -> Collection:
        """Return a collection; the words in a slug may change, its last part does not.

        Raises:
            NotThere: There is none.
        """
        owner, _, words = slug.partition("/")
        row = self._database.row(
            f"SELECT * FROM collections WHERE owner = ? AND substr(slug, -{ID_LETTERS}) = ?",
            owner,
            words[-ID_LETTERS:],
        )
        if row is None:
            raise NotThere(f"There is no collection {slug}.")
        return self._filled([row])[0]

    def page(
        self, caller: Caller, owners: list[str], items: list[str], order: str, skip: int, limit: int
    ) -> list[Collection]:
        """Return a page of the collections that the caller may see."""
        mine = [caller.name, *caller.organisations] if caller.role != "fineGrained" else []
        where = [f"(private = 0 OR owner IN ({','.join('?' * len(mine))}))"]
        values: list[Any] = list(mine)
        if owners:
            where.append(f"owner IN ({','.join('?' * len(owners))})")
            values += owners
        for item in items:
            kind, _, target = item.partition("/")
            where.append(
                "slug IN (SELECT collection FROM collection_items WHERE kind = ? AND target = ?)"
            )
            values += [kind.removesuffix("s"), target]
        rows = self._database.rows(
            f"SELECT * FROM collections WHERE {' AND '.join(where)}"
            " ORDER BY modified_at DESC, slug LIMIT ? OFFSET ?",
            *values,
            limit,
            skip,
        )
        return self._filled(rows)

    def update(self, slug: str, changes: dict[str, Any]) -> Collection:
        """Change title, description, theme or privacy; the slug's words follow the title."""
        good: dict[str, Any] = {}
        if "title" in changes:
            good["title"] = _short(changes["title"], "title", MAX_TITLE, least=1)
        if "description" in changes:
            good["description"] = _short(changes["description"], "description", MAX_DESCRIPTION)
        if "private" in changes:
            good["private"] = bool(changes["private"])
        if "theme" in changes:
            if changes["theme"] not in THEMES:
                raise Malformed(f"Invalid theme: one of {', '.join(THEMES)} is wanted.")
            good["theme"] = changes["theme"]
        found = self.find(slug)
        good["modified_at"] = now()
        good["slug"] = _slug(found.owner, good.get("title", found.title), slug[-ID_LETTERS:])
        columns = ", ".join(f"{column} = ?" for column in good)
        with self._database.write() as connection:
            connection.execute("PRAGMA defer_foreign_keys = ON")  # the entries follow just below
            connection.execute(
                f"UPDATE collections SET {columns} WHERE slug = ?", (*good.values(), slug)
            )
            connection.execute(
                "UPDATE collection_items SET collection = ? WHERE collection = ?",
                (good["slug"], slug),
            )
        return self.find(good["slug"])

    def delete(self, slug: str) -> None:
        """Remove a collection; what it lists stays."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM collections WHERE slug = ?", (slug,))

    def add(self, slug: str, kind: object, target: object, note: object) -> Collection:
        """Add an entry at the end.

        Raises:
            AlreadyExists: It is in the collection.
        """
        if kind not in KINDS or not isinstance(target, str) or not 0 < len(target) < 300:
            raise Malformed(f"An item has an id and a type ({', '.join(KINDS)}).")
        good = _short(note, "note", MAX_NOTE) if note is not None else None
        try:
            with self._database.write() as connection:
                connection.execute(
                    "INSERT INTO collection_items SELECT ?, ?, ?, ?, ?, COUNT(*)"
                    " FROM collection_items WHERE collection = ?",
                    (secrets.token_hex(12), slug, kind, target, good, slug),
                )
                self._touch(connection, slug)
        except sqlite3.IntegrityError as problem:
            raise AlreadyExists(f"{target} is already in the collection.", slug) from problem
        return self.find(slug)

    def update_item(self, slug: str, item_id: str, changes: dict[str, Any]) -> None:
        """Change an entry's note or place."""
        found = self._item(slug, item_id)
        order = [item.id for item in self.find(slug).items]
        if isinstance(changes.get("position"), int):
            order.remove(found.id)
            order.insert(max(0, changes["position"]), found.id)
        with self._database.write() as connection:
            if "note" in changes:
                good = _short(changes["note"], "note", MAX_NOTE)
                connection.execute(
                    "UPDATE collection_items SET note = ? WHERE id = ?", (good, found.id)
                )
            connection.executemany(
                "UPDATE collection_items SET position = ? WHERE id = ?",
                [(place, each) for place, each in enumerate(order)],
            )
            self._touch(connection, slug)

    def remove(self, slug: str, item_id: str) -> None:
        """Remove an entry."""
        found = self._item(slug, item_id)
        with self._database.write() as connection:
            connection.execute("DELETE FROM collection_items WHERE id = ?", (found.id,))
            self._touch(connection, slug)

    def _item(self, slug: str, item_id: str) -> Item:
        for item in self.find(slug).items:
            if item.id == item_id:
                return item
        raise NotThere("There is no such item in the collection.")

    def _filled(self, rows: list[sqlite3.Row]) -> list[Collection]:
        items: dict[str, list[Item]] = {row["slug"]: [] for row in rows}
        marks = ",".join("?" * len(items))
        for row in self._database.rows(
            f"SELECT * FROM collection_items WHERE collection IN ({marks}) ORDER BY position, id",
            *items,
        ):
            items[row["collection"]].append(
                Item(row["id"], row["kind"], row["target"], row["note"], row["position"])
            )
        return [
            Collection(
                **{name: row[name] for name in row.keys() if name != "private"},  # noqa: SIM118
                private=bool(row["private"]),
                items=tuple(items[row["slug"]]),
            )
            for row in rows
        ]

    def _touch(self, connection: sqlite3.Connection, slug: str) -> None:
        connection.execute("UPDATE collections SET modified_at = ? WHERE slug = ?", (now(), slug))


def _slug(owner: str, title: str, collection_id: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "collection"
    return f"{owner}/{words}-{collection_id}"


def _short(text: object, what: str, most: int, least: int = 0) -> str:
    if not isinstance(text, str) or not least <= len(text.strip()) <= most:
        raise Malformed(f"A collection's {what} has {least} to {most} characters.")
    return text.strip()
