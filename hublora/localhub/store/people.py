"""Users, organisations and their tokens. Tokens are kept only as sha256: they are random enough."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
from dataclasses import dataclass, field

from .database import Database
from .disk import now, stamp
from .errors import AlreadyExists, BadCredentials, Malformed, NotThere
from .names import check_name, check_owner

ROLES = ("read", "write", "fineGrained")
_USE_NOTED_SECONDS = 3600


@dataclass(frozen=True)
class Caller:
    """Who asks: a user through one token, or nobody in particular."""

    name: str | None = None
    fullname: str = ""
    user_id: int = 0
    role: str = "read"
    token_label: str = ""
    token_created_at: str = ""
    # A fine-grained token opens this one repo (its id) and nothing else that is private.
    only_repo: str | None = None
    repo_role: str | None = None
    organisations: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether the call came with a good token."""
        return self.name is not None


NOBODY = Caller()


@dataclass(frozen=True)
class TokenFacts:
    """A token as it may be shown: everything but the token."""

    id: int
    user: str
    label: str
    role: str
    repo: str | None
    created_at: str
    expires_at: str | None
    used_at: str | None  # within the hour
    revoked_at: str | None


class People:
    """Everything about who there is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, kind: str = "user", fullname: str | None = None) -> None:
        """Add a user or an organisation.

        Raises:
            AlreadyExists: Somebody has that name.
            Malformed: It cannot be a name.
        """
        check_owner(name)
        try:
            with self._database.write() as connection:
                connection.execute(
                    "INSERT INTO users (id, name, kind, fullname, created_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (_next_id(connection, "user"), name, kind, fullname or name, now()),
                )
        except sqlite3.IntegrityError as problem:
            raise AlreadyExists(f"There is already a user '{name}'.", name) from problem

    def find(self, name: str) -> sqlite3.Row:
        """Return the row of a user or organisation.

        Raises:
            NotThere: There is none of that name.
        """
        row = self.known(name)
        if row is None:
            raise NotThere(
                f"There is no user '{name}'.", "See them with `hublora hub user ls --data DIR`."
            )
        return row

    def known(self, name: str) -> sqlite3.Row | None:
        """Return the row of a user or organisation, or None."""
        return self._database.row("SELECT * FROM users WHERE name = ?", name)

    def name_of(self, user_id: int) -> str | None:
        """Return the name of a user, or None."""
        row = self._database.row("SELECT name FROM users WHERE id = ?", user_id)
        return row["name"] if row else None

    def everyone(self) -> list[sqlite3.Row]:
        """Return all users and organisations by name."""
        return self._database.rows("SELECT * FROM users ORDER BY name")

    def remove(self, name: str) -> None:
        """Remove a user with all tokens and collections; refused while repos bear the name.

        What they said stays, under a name that nobody can have: whoever gets theirs next is
        somebody else, and not the author of their pull requests.
        """
        user = self.find(name)
        if self._database.row("SELECT 1 FROM repos WHERE owner = ?", user["name"]):
            raise Malformed(f"'{name}' still has repos: delete or move them first.")
        with self._database.write() as connection:
            former = f"{user['name']} (removed)"
            for table in ("discussions", "events"):
                connection.execute(
                    f"UPDATE {table} SET author = ? WHERE author = ? COLLATE NOCASE",
                    (former, user["name"]),
                )
            connection.execute("DELETE FROM collections WHERE owner = ?", (user["name"],))
            connection.execute("DELETE FROM users WHERE id = ?", (user["id"],))

    def set_member(self, organisation: str, user: str, role: str) -> None:
        """Let `user` act in `organisation` as admin, write or read."""
        org, member = self.find(organisation), self.find(user)
        if org["kind"] != "org" or member["kind"] != "user":
            raise Malformed("A member is a user, and is in an organisation.")
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO members (org, user, role) VALUES (?, ?, ?)",
                (org["id"], member["id"], role),
            )

    def remove_member(self, organisation: str, user: str) -> None:
        """Take `user` out of `organisation`.

        Raises:
            NotThere: They are not in it.
        """
        org, member = self.find(organisation), self.find(user)
        with self._database.write() as connection:
            done = connection.execute(
                "DELETE FROM members WHERE org = ? AND user = ?", (org["id"], member["id"])
            )
            if done.rowcount == 0:
                raise NotThere(
                    f"'{member['name']}' is not in '{org['name']}'.",
                    f"See who is with `hublora hub user members {org['name']} --data DIR`.",
                )

    def members(self, organisation: str) -> list[sqlite3.Row]:
        """Return the members of an organisation with their roles."""
        return self._database.rows(
            "SELECT u.*, m.role FROM members m JOIN users u ON u.id = m.user"
            " WHERE m.org = ? ORDER BY u.name",
            self.find(organisation)["id"],
        )

    def organisations(self, user_id: int) -> dict[str, str]:
        """Return the organisations of a user with the role in each."""
        rows = self._database.rows(
            "SELECT o.name, m.role FROM members m JOIN users o ON o.id = m.org"
            " WHERE m.user = ? ORDER BY o.name",
            user_id,
        )
        return {row["name"]: row["role"] for row in rows}

    def create_token(
        self,
        user: str,
        role: str = "write",
        label: str = "token",
        repo: str | None = None,
        repo_role: str | None = None,
        seconds: float | None = None,
    ) -> str:
        """Give out a new token for `user`; this is the only time it can be read.

        Args:
            user: Name of the token's user.
            role: `read`, `write`, or `fineGrained` with `repo` and `repo_role`.
            label: Name of the token in lists.
            repo: The id (in this store) of the one repo that a fine-grained token opens.
            repo_role: Role of the token in these repos, `read` or `write`.
            seconds: How long it opens anything; without an end if not given.
        """
        row = self.find(user)
        if row["kind"] != "user":
            raise Malformed("Tokens belong to users; an organisation is used through its members.")
        if role not in ROLES or (role == "fineGrained") != (repo is not None):
            raise Malformed("A token's role is read, write, or fineGrained with one repo.")
        check_name(label.replace(" ", "-"), "token label")
        token = "hf_" + secrets.token_urlsafe(32).replace("-", "A").replace("_", "B")
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO tokens (id, user, label, role, hash, repo, repo_role, created_at,"
                " expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    _next_id(connection, "token"),
                    row["id"],
                    label,
                    role,
                    _hash(token),
                    repo,
                    repo_role,
                    now(),
                    stamp(time.time() + seconds) if seconds is not None else None,
                ),
            )
        return token

    def tokens(self, user: str | None = None) -> list[TokenFacts]:
        """Return the facts of all tokens, or of one user's."""
        rows = self._database.rows(
            "SELECT t.*, u.name FROM tokens t JOIN users u ON u.id = t.user"
            " WHERE ?1 IS NULL OR u.name = ?1 ORDER BY t.id",
            user,
        )
        return [
            TokenFacts(
                id=row["id"],
                user=row["name"],
                label=row["label"],
                role=row["role"],
                repo=row["repo"],
                created_at=row["created_at"],
                expires_at=row["expires_at"],
                used_at=row["used_at"],
                revoked_at=row["revoked_at"],
            )
            for row in rows
        ]

    def revoke_token(self, token_or_id: str) -> None:
        """Make a token worthless, named by itself or by its number in the list."""
        with self._database.write() as connection:
            done = connection.execute(
                "UPDATE tokens SET revoked_at = ? WHERE revoked_at IS NULL"
                " AND (hash = ? OR CAST(id AS TEXT) = ?)",
                (now(), _hash(token_or_id), token_or_id),
            )
            if done.rowcount == 0:
                raise NotThere(
                    "There is no such token.", "See them with `hublora hub token ls --data DIR`."
                )

    def authenticate(self, token: str) -> Caller:
        """Return who holds `token`.

        Raises:
            BadCredentials: Nobody, or no longer.
        """
        hashed = _hash(token)
        row = self._database.row(
            "SELECT t.*, u.name, u.fullname FROM tokens t JOIN users u ON u.id = t.user"
            " WHERE t.hash = ? AND t.revoked_at IS NULL"
            " AND (t.expires_at IS NULL OR t.expires_at > ?)",
            hashed,
            now(),
        )
        # Found by its hash, so what a lookup's time tells is about a hash and not the token.
        if row is None or not hmac.compare_digest(row["hash"], hashed):
            raise BadCredentials
        self._note_use(row)
        return Caller(
            name=row["name"],
            fullname=row["fullname"],
            user_id=row["user"],
            role=row["role"],
            token_label=row["label"],
            token_created_at=row["created_at"],
            only_repo=row["repo"],
            repo_role=row["repo_role"],
            organisations=self.organisations(row["user"]),
        )

    def _note_use(self, row: sqlite3.Row) -> None:
        """Note when a token was used, once an hour: a request is not to cost a write."""
        if (row["used_at"] or "") < stamp(time.time() - _USE_NOTED_SECONDS):
            with self._database.write(durable=False) as connection:
                connection.execute("UPDATE tokens SET used_at = ? WHERE id = ?", (now(), row["id"]))


def _next_id(connection: sqlite3.Connection, kind: str) -> int:
    """Return an id that nobody has or had: what still names a removed one finds nobody."""
    (found,) = connection.execute(
        "UPDATE last_ids SET id = id + 1 WHERE kind = ? RETURNING id", (kind,)
    ).fetchone()
    return int(found)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
