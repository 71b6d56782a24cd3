"""The register of repos: names, settings, and what lists are searched by.

A repo's files live in a folder named by a random id; the name that people see is only a column
here. So a rename is one row, and no name from outside ever becomes a path on disk.

Over 300 lines because all changes of a repo's row and of what is searched by it stay together.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any

from .database import Database
from .disk import now
from .errors import AlreadyExists, Malformed, RepoNotFound
from .indexing import IndexEntry
from .names import check_name, check_owner

KINDS = ("model", "dataset", "space")
SPACE_SDKS = ("gradio", "streamlit", "docker", "static")
GATES = ("", "auto", "manual")


@dataclass(frozen=True)
class Repo:
    """One row of the register."""

    id: str
    kind: str
    name: str
    owner: str
    private: bool
    gated: str
    sdk: str | None
    created_at: str
    modified_at: str
    downloads: int
    likes: int
    head: str
    card: dict[str, Any]
    pipeline_tag: str | None
    library_name: str | None
    parameters: int | None = None  # numbers in the top-level safetensors files of a model
    damage: str = ""  # why its git repository is set aside, empty while it is sound
    tags: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The repo's place on the site: `datasets/me/images`, or plain `me/lora` for models."""
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"


class Repos:
    """Creates, finds, renames and forgets repos."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check_free(self, kind: str, owner: str, name: str, sdk: str | None) -> str:
        """Return an id for a new repo of that name.

        Raises:
            AlreadyExists: The name is taken.
            Malformed: The kind, name or SDK is not one.
        """
        check_owner(owner)
        check_name(name, "repo name")
        if kind not in KINDS:
            raise Malformed(f"Invalid repo type: one of {', '.join(KINDS)} is wanted.")
        if (kind == "space") != (sdk is not None) or (sdk and sdk not in SPACE_SDKS):
            raise Malformed(f"Invalid SDK: a Space needs one of {', '.join(SPACE_SDKS)}.")
        full = f"{owner}/{name}"
        taken = self._database.row("SELECT name FROM repos WHERE kind = ? AND name = ?", kind, full)
        if taken:
            raise _taken(kind, taken["name"])
        return secrets.token_hex(12)

    def create(
        self,
        repo_id: str,
        kind: str,
        owner: str,
        name: str,
        private: bool,
        sdk: str | None,
        source: Repo | None = None,
    ) -> Repo:
        """Register a repo whose folder is ready; it may use every large file of `source`.

        Raises:
            AlreadyExists: The name was taken in the meantime.
        """
        moment, full = now(), f"{owner}/{name}"
        try:
            with self._database.write() as connection:
                connection.execute(
                    "INSERT INTO repos (id, kind, name, owner, private, sdk, created_at,"
                    " modified_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (repo_id, kind, full, owner, private, sdk, moment, moment),
                )
                connection.execute(
                    "DELETE FROM former_names WHERE kind = ? AND name = ?", (kind, full)
                )
                if source is not None:
                    connection.execute(
                        "INSERT INTO large_files SELECT ?, oid, size, created_at"
                        " FROM large_files WHERE repo = ?",
                        (repo_id, source.id),
                    )
                    connection.execute(
                        "INSERT INTO aliases SELECT ?, upstream, commit_id, created_at"
                        " FROM aliases WHERE repo = ?",
                        (repo_id, source.id),
                    )
        except sqlite3.IntegrityError as problem:
            raise _taken(kind, full) from problem
        return self.by_id(repo_id)

    def find(self, kind: str, name: str) -> Repo:
        """Return the repo of that name, also by a name that it had before it moved.

        Raises:
            RepoNotFound: There is none.
        """
        row = self._database.row(
            "SELECT * FROM repos WHERE kind = ? AND name = ?", kind, name
        ) or self._database.row(
            "SELECT r.* FROM former_names f JOIN repos r ON r.id = f.repo"
            " WHERE f.kind = ? AND f.name = ?",
            kind,
            name,
        )
        if row is None:
            raise RepoNotFound(name)
        return self.with_tags([row])[0]

    def at(self, path: str) -> Repo:
        """Return the repo at a place on the site: `me/lora`, `datasets/me/images`."""
        prefix, _, name = path.partition("/")
        if prefix.endswith("s") and prefix[:-1] in KINDS and "/" in name:
            return self.find(prefix[:-1], name)
        return self.find("model", path)

    def by_id(self, repo_id: str) -> Repo:
        """Return the repo with that id."""
        row = self._database.row("SELECT * FROM repos WHERE id = ?", repo_id)
        if row is None:
            raise RepoNotFound(repo_id)
        return self.with_tags([row])[0]

    def knows(self, repo_id: str) -> bool:
        """Tell whether a repo of that id is on the register."""
        return self._database.row("SELECT 1 FROM repos WHERE id = ?", repo_id) is not None

    def all(self) -> list[Repo]:
        """Return every repo, by kind and name."""
        return self.with_tags(self._database.rows("SELECT * FROM repos ORDER BY kind, name"))

    def owned_by(self, owner: str) -> list[Repo]:
        """Return every repo of somebody."""
        rows = self._database.rows("SELECT * FROM repos WHERE owner = ? ORDER BY name", owner)
        return self.with_tags(rows)

    def public_tags(self, kind: str) -> list[str]:
        """Return the tags of all public repos."""
        rows = self._database.rows(
            "SELECT DISTINCT t.tag FROM repo_tags t JOIN repos r ON r.id = t.repo"
            " WHERE r.kind = ? AND r.private = 0 ORDER BY t.tag",
            kind,
        )
        return [row["tag"] for row in rows]

    def with_tags(self, rows: list[sqlite3.Row]) -> list[Repo]:
        """Return the repos of some rows of the table, their tags included."""
        tags: dict[str, list[str]] = {row["id"]: [] for row in rows}
        marks = ",".join("?" * len(tags))
        query = f"SELECT repo, tag FROM repo_tags WHERE repo IN ({marks}) ORDER BY repo, place"
        for found in self._database.rows(query, *tags):
            tags[found["repo"]].append(found["tag"])
        return [_repo(row, tags[row["id"]]) for row in rows]

    def update(self, repo: Repo, private: bool | None = None, gated: str | None = None) -> None:
        """Change a repo's settings."""
        if gated is not None and gated not in GATES:
            raise Malformed("Invalid gate: auto, manual or false is wanted.")
        with self._database.write() as connection:
            if private is not None:
                connection.execute("UPDATE repos SET private = ? WHERE id = ?", (private, repo.id))
            if gated is not None:
                connection.execute("UPDATE repos SET gated = ? WHERE id = ?", (gated, repo.id))

    def move(self, repo: Repo, owner: str, name: str) -> None:
        """Rename a repo; its old name goes on leading to it."""
        check_owner(owner)
        full = f"{owner}/{check_name(name, 'repo name')}"
        try:
            with self._database.write() as connection:
                connection.execute(
                    "DELETE FROM former_names WHERE kind = ? AND name = ?", (repo.kind, full)
                )
                connection.execute(
                    "UPDATE repos SET name = ?, owner = ? WHERE id = ?", (full, owner, repo.id)
                )
                connection.execute(
                    "INSERT OR REPLACE INTO former_names VALUES (?, ?, ?)",
                    (repo.kind, repo.name, repo.id),
                )
                connection.execute(
                    "UPDATE OR REPLACE collection_items SET target = ?"
                    " WHERE kind = ? AND target = ? COLLATE NOCASE",
                    (full, repo.kind, repo.name),
                )
        except sqlite3.IntegrityError as problem:
            raise AlreadyExists(
                f"A {repo.kind} repository called {full} already exists.", full
            ) from problem

    def forget(self, repo: Repo) -> None:
        """Take a repo off the register, and everything that hangs on it."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM repos WHERE id = ?", (repo.id,))
            connection.execute(
                "DELETE FROM collection_items WHERE kind = ? AND target = ? COLLATE NOCASE",
                (repo.kind, repo.name),
            )

    def mark_stale(self, repo_id: str) -> None:
        """Note, before a branch moves, that the index below will have to be made again."""
        with self._database.write() as connection:
            connection.execute("UPDATE repos SET stale = 1 WHERE id = ?", (repo_id,))

    def stale(self) -> list[Repo]:
        """Return the repos whose index a crash left behind."""
        return self.with_tags(self._database.rows("SELECT * FROM repos WHERE stale = 1"))

    def damaged(self) -> list[Repo]:
        """Return the repos that are set aside."""
        return self.with_tags(self._database.rows("SELECT * FROM repos WHERE damage != ''"))

    def set_aside(self, repo_id: str, damage: str) -> None:
        """Note why a repo's git repository cannot be used, or with no reason that it can again."""
        with self._database.write() as connection:
            connection.execute("UPDATE repos SET damage = ? WHERE id = ?", (damage, repo_id))

    def index(self, repo_id: str, entry: IndexEntry) -> None:
        """Write what lists and searches need to know of the newest commit.

        A power cut may undo it: then the mark of `mark_stale`, which is durable, is there again.
        """
        with self._database.write(durable=False) as connection:
            connection.execute(
                "UPDATE repos SET head = ?, card = ?, pipeline_tag = ?, library_name = ?,"
                " modified_at = ?, parameters = ?, stale = 0 WHERE id = ?",
                (
                    entry.head,
                    json.dumps(entry.card),
                    entry.pipeline_tag,
                    entry.library_name,
                    entry.modified_at,
                    entry.parameters,
                    repo_id,
                ),
            )
            connection.execute("DELETE FROM repo_tags WHERE repo = ?", (repo_id,))
            connection.executemany(
                "INSERT INTO repo_tags (repo, tag, place) VALUES (?, ?, ?)",
                [(repo_id, tag, place) for place, tag in enumerate(entry.tags)],
            )
            connection.execute(
                "INSERT OR REPLACE INTO repo_texts SELECT ?1, ?2, ?3"
                " WHERE EXISTS (SELECT 1 FROM repos WHERE id = ?1)",
                (repo_id, entry.metadata, entry.words),
            )

    def like(self, repo: Repo, user_id: int, liked: bool) -> None:
        """Note that a user likes a repo, or no longer."""
        with self._database.write() as connection:
            if liked:
                connection.execute(
                    "INSERT OR IGNORE INTO likes VALUES (?, ?, ?)", (repo.id, user_id, now())
                )
            else:
                connection.execute(
                    "DELETE FROM likes WHERE repo = ? AND user = ?", (repo.id, user_id)
                )
            connection.execute(
                "UPDATE repos SET likes = (SELECT COUNT(*) FROM likes WHERE repo = ?1)"
                " WHERE id = ?1",
                (repo.id,),
            )

    def likes(self, repo: Repo, user_id: int) -> bool:
        """Tell whether a user likes a repo."""
        found = self._database.row(
            "SELECT 1 FROM likes WHERE repo = ? AND user = ?", repo.id, user_id
        )
        return found is not None

    def likers(self, repo: Repo) -> list[sqlite3.Row]:
        """Return the users who like a repo."""
        return self._database.rows(
            "SELECT u.* FROM likes l JOIN users u ON u.id = l.user WHERE l.repo = ?"
            " ORDER BY l.created_at",
            repo.id,
        )

    def liked(self, user_id: int) -> list[tuple[Repo, str]]:
        """Return the repos that a user likes, and since when."""
        rows = self._database.rows(
            "SELECT r.*, l.created_at AS since FROM likes l JOIN repos r ON r.id = l.repo"
            " WHERE l.user = ? ORDER BY l.created_at DESC",
            user_id,
        )
        return [(self.by_id(row["id"]), row["since"]) for row in rows]

    def add_downloads(self, counts: dict[str, int]) -> None:
        """Add to the downloads of some repos."""
        with self._database.write(durable=False) as connection:
            connection.executemany(
                "UPDATE repos SET downloads = downloads + ? WHERE id = ?",
                [(count, repo_id) for repo_id, count in counts.items()],
            )


def _taken(kind: str, full: str) -> AlreadyExists:
    return AlreadyExists(f"You already created this {kind} repo: {full}", full)


def _repo(row: sqlite3.Row, tags: list[str]) -> Repo:
    values = {name: row[name] for name in row.keys() if name != "stale"}  # noqa: SIM118
    values["private"] = bool(values["private"])
    values["card"] = json.loads(values["card"])
    return Repo(**values, tags=tuple(tags))
