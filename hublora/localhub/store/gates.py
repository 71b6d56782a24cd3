"""Gated repos: asking for access, and the owner's answer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from .access import Consent
from .database import Database
from .disk import now
from .errors import Malformed, NotThere
from .people import Caller
from .repos import Repo

STATUSES = ("pending", "accepted", "rejected")


class Gates:
    """Who asked for what, and what became of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def consent(self, repo: Repo, caller: Caller) -> Consent:
        """Return what a gated repo's owner has said about the caller."""
        if not repo.gated or not caller.known:
            return Consent()
        row = self._database.row(
            "SELECT status FROM access_requests WHERE repo = ? AND user = ?",
            repo.id,
            caller.user_id,
        )
        return Consent(row["status"] if row else None)

    def ask(self, repo: Repo, caller: Caller, fields: Mapping[str, str]) -> str:
        """Ask for access; return `accepted` where the gate opens by itself, else `pending`."""
        status = "accepted" if repo.gated == "auto" else "pending"
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO access_requests VALUES (?, ?, ?, ?, ?)",
                (repo.id, caller.user_id, status, json.dumps(fields)[:10_000], now()),
            )
        return str(self.consent(repo, caller).status)

    def requests(self, repo: Repo, status: str) -> list[sqlite3.Row]:
        """Return the requests of one status."""
        if status not in STATUSES:
            raise Malformed(f"Invalid status: one of {', '.join(STATUSES)} is wanted.")
        return self._database.rows(
            "SELECT a.*, u.name, u.fullname FROM access_requests a JOIN users u ON u.id = a.user"
            " WHERE a.repo = ? AND a.status = ? ORDER BY a.created_at",
            repo.id,
            status,
        )

    def answer(self, repo: Repo, user_id: int, status: object) -> None:
        """Accept, reject, or put back to pending.

        Raises:
            NotThere: The user never asked, or has this answer already.
        """
        if status not in STATUSES:
            raise Malformed(f"Invalid status: one of {', '.join(STATUSES)} is wanted.")
        with self._database.write() as connection:
            done = connection.execute(
                "UPDATE access_requests SET status = ?1 WHERE repo = ?2 AND user = ?3"
                " AND status != ?1",
                (status, repo.id, user_id),
            )
            if done.rowcount == 0:
                raise NotThere(f"This user has no request for access that is not {status} yet.")

    def grant(self, repo: Repo, user_id: int) -> None:
        """Let a user in, asked or not.

        Raises:
            Malformed: The user is in already.
        """
        with self._database.write() as connection:
            done = connection.execute(
                "INSERT INTO access_requests VALUES (?, ?, 'accepted', '{}', ?)"
                " ON CONFLICT (repo, user) DO UPDATE SET status = 'accepted'"
                " WHERE status != 'accepted'",
                (repo.id, user_id, now()),
            )
            if done.rowcount == 0:
                raise Malformed(f"This user already has access to {repo.name}.")
