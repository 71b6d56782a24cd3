"""One SQLite file for what is not git: people, tokens, names of repos, who has which large file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hublora.errors import HubloraError

from .disk import sync_file

_FIRST = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'org')),
    fullname TEXT NOT NULL, created_at TEXT NOT NULL
);
CREATE TABLE members (
    org INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    user INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'write', 'read')), PRIMARY KEY (org, user)
);
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY, user INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    label TEXT NOT NULL, role TEXT NOT NULL CHECK (role IN ('read', 'write', 'fineGrained')),
    hash TEXT NOT NULL UNIQUE, repo TEXT, repo_role TEXT, created_at TEXT NOT NULL,
    revoked_at TEXT
);
CREATE TABLE repos (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('model', 'dataset', 'space')),
    name TEXT NOT NULL COLLATE NOCASE, owner TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL DEFAULT 0, gated TEXT NOT NULL DEFAULT '', sdk TEXT,
    created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
    downloads INTEGER NOT NULL DEFAULT 0, likes INTEGER NOT NULL DEFAULT 0,
    head TEXT NOT NULL DEFAULT '', card TEXT NOT NULL DEFAULT '{}', pipeline_tag TEXT,
    library_name TEXT, stale INTEGER NOT NULL DEFAULT 1, UNIQUE (kind, name)
);
CREATE INDEX repos_by_date ON repos (kind, modified_at DESC, id);
CREATE INDEX repos_by_owner ON repos (kind, owner);
CREATE TABLE repo_tags (
    repo TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE, tag TEXT NOT NULL,
    place INTEGER NOT NULL, PRIMARY KEY (repo, tag)
) WITHOUT ROWID;
CREATE INDEX repos_by_tag ON repo_tags (tag, repo);
CREATE TABLE former_names (
    kind TEXT NOT NULL, name TEXT NOT NULL COLLATE NOCASE,
    repo TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE, PRIMARY KEY (kind, name)
);
CREATE TABLE large_files (
    repo TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE, oid TEXT NOT NULL,
    size INTEGER NOT NULL, created_at TEXT NOT NULL, PRIMARY KEY (repo, oid)
) WITHOUT ROWID;
CREATE INDEX large_files_by_oid ON large_files (oid);
CREATE TABLE likes (
    repo TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
    user INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at TEXT NOT NULL, PRIMARY KEY (repo, user)
);
CREATE TABLE access_requests (
    repo TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
    user INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    status TEXT NOT NULL CHECK (status IN ('pending', 'accepted', 'rejected')),
    fields TEXT NOT NULL DEFAULT '{}', created_at TEXT NOT NULL, PRIMARY KEY (repo, user)
);
CREATE TABLE discussions (
    repo TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE, number INTEGER NOT NULL,
    title TEXT NOT NULL, status TEXT NOT NULL, is_pull_request INTEGER NOT NULL,
    author TEXT NOT NULL, base TEXT, merge_commit TEXT, created_at TEXT NOT NULL,
    PRIMARY KEY (repo, number)
);
CREATE TABLE events (
    id TEXT PRIMARY KEY, repo TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL,
    author TEXT NOT NULL, created_at TEXT NOT NULL, data TEXT NOT NULL,
    FOREIGN KEY (repo, number) REFERENCES discussions(repo, number) ON DELETE CASCADE
);
CREATE INDEX events_by_discussion ON events (repo, number);
CREATE TABLE collections (
    slug TEXT PRIMARY KEY, owner TEXT NOT NULL COLLATE NOCASE, title TEXT NOT NULL,
    description TEXT NOT NULL, private INTEGER NOT NULL, theme TEXT NOT NULL,
    created_at TEXT NOT NULL, modified_at TEXT NOT NULL
);
CREATE TABLE collection_items (
    id TEXT PRIMARY KEY, collection TEXT NOT NULL REFERENCES collections(slug) ON DELETE CASCADE,
    kind TEXT NOT NULL, target TEXT NOT NULL, note TEXT, position INTEGER NOT NULL,
    UNIQUE (collection, kind, target)
);
"""
_SECOND = """
ALTER TABLE repos ADD COLUMN damage TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN expires_at TEXT;
ALTER TABLE tokens ADD COLUMN used_at TEXT;
CREATE TABLE last_ids (kind TEXT PRIMARY KEY, id INTEGER NOT NULL);
INSERT INTO last_ids SELECT 'user', COALESCE(MAX(id), 0) FROM users;
INSERT INTO last_ids SELECT 'token', COALESCE(MAX(id), 0) FROM tokens;
"""
_THIRD = """
ALTER TABLE repos ADD COLUMN parameters INTEGER;
CREATE TABLE repo_texts (
    repo TEXT PRIMARY KEY REFERENCES repos(id) ON DELETE CASCADE,
    metadata TEXT NOT NULL, words TEXT NOT NULL
);
UPDATE repos SET stale = 1;
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY, user INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    url TEXT NOT NULL, watched TEXT NOT NULL, domains TEXT NOT NULL, secret TEXT,
    disabled INTEGER NOT NULL DEFAULT 0, created_at TEXT NOT NULL
);
"""
_FOURTH = """
CREATE TABLE aliases (
    repo TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE, upstream TEXT NOT NULL,
    commit_id TEXT NOT NULL, created_at TEXT NOT NULL, PRIMARY KEY (repo, upstream)
);
"""
# What each version adds to the one before; a new one goes to the end.
SCHEMAS = (_FIRST, _SECOND, _THIRD, _FOURTH)


class Database:
    """Gives each thread its own connection; every write is one durable transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # SQLite gives its journals the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        for file in (path, *path.parent.glob(f"{path.name}-*")):
            with contextlib.suppress(FileNotFoundError):  # another process closed the journal
                file.chmod(0o600)
        self._local = threading.local()
        with self.write() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(SCHEMAS):
                raise HubloraError(
                    f"{path} was written by a newer hublora (version {version} of its tables,"
                    f" this one knows {len(SCHEMAS)}).",
                    "Update hublora: pip install -U hublora",
                )
            for schema in SCHEMAS[version:]:
                for statement in schema.split(";\n"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(SCHEMAS)}")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
        return connection

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        return self._connection().execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row of a query, if there is one."""
        row: sqlite3.Row | None = self._connection().execute(query, values).fetchone()
        return row

    def sync(self) -> None:
        """Make what was written without `durable` last."""
        with contextlib.suppress(FileNotFoundError):
            sync_file(self.path.with_name(f"{self.path.name}-wal"))

    @contextlib.contextmanager
    def write(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Open a write transaction: all of it lasts, or nothing does.

        Args:
            durable: Wait for the disk. Not needed for what can be derived again after a power cut,
                or will be followed by `sync`.
        """
        connection = self._connection()
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
