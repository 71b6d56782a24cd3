"""Names that another Hub gave to commits of which only the files are here, not the git objects.

A commit's id is a hash over its author, date, message and parents, which a cached snapshot does
not hold. So its files are a commit of our own, and an alias lets the upstream id lead to it: it is
taken as a revision, and told wherever the commit's id is told by the API.
"""

from __future__ import annotations

from .database import Database
from .disk import now


class Aliases:
    """The upstream ids of commits, by repo."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, repo_id: str, upstream: str, commit: str) -> None:
        """Let an upstream id lead to a commit of a repo; durable."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?)",
                (repo_id, upstream, commit, now()),
            )

    def of(self, repo_id: str) -> dict[str, str]:
        """Return the commits of a repo by their upstream ids, the newest alias last."""
        rows = self._database.rows(
            "SELECT upstream, commit_id FROM aliases WHERE repo = ? ORDER BY created_at, rowid",
            repo_id,
        )
        return {row["upstream"]: row["commit_id"] for row in rows}
