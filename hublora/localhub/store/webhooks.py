"""Webhooks: who is told, at which address, when something happens to a repo.

Shapes follow https://huggingface.co/docs/hub/webhooks.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .database import Database
from .disk import now
from .errors import Malformed, NotThere
from .repos import Repo

MAX_WEBHOOKS = 50  # of one user
MAX_WATCHED = 100
MAX_URL = 2000
MAX_SECRET = 200
DOMAINS = ("repo", "discussion")
KINDS = ("user", "org", "model", "dataset", "space")


@dataclass(frozen=True)
class Webhook:
    """One webhook of a user.

    Attributes:
        id: 24 hexadecimal digits.
        user: The user's id.
        url: http or https.
        watched: `type` (of `KINDS`) and `name` of each owner or repo that is watched.
        domains: Some of `DOMAINS`.
        secret: Sent with each call; None for none.
        disabled: Whether nothing is sent.
    """

    id: str
    user: int
    url: str
    watched: tuple[dict[str, str], ...]
    domains: tuple[str, ...]
    secret: str | None
    disabled: bool

    def watches(self, repo: Repo) -> bool:
        """Tell whether a repo, or its owner, is watched."""
        return any(
            item["name"].lower() == (repo.name if item["type"] == repo.kind else repo.owner).lower()
            for item in self.watched
            if item["type"] in (repo.kind, "user", "org")
        )


class Webhooks:
    """Everything about webhooks but the sending."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, user_id: int, wanted: dict[str, Any]) -> Webhook:
        """Make a webhook.

        Raises:
            Malformed: Something of it cannot be meant, or the user has too many.
        """
        good = {"domains": json.dumps(DOMAINS), **_checked(wanted)}
        if "url" not in good or "watched" not in good:
            raise Malformed("A webhook has a url and a list of what is watched.")
        if len(self.of(user_id)) >= MAX_WEBHOOKS:
            raise Malformed(f"A user has at most {MAX_WEBHOOKS} webhooks: delete one first.")
        webhook_id = secrets.token_hex(12)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO webhooks (id, user, url, watched, domains, secret, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    webhook_id,
                    user_id,
                    good["url"],
                    good["watched"],
                    good["domains"],
                    good.get("secret"),
                    now(),
                ),
            )
        return self.find(user_id, webhook_id)

    def of(self, user_id: int) -> list[Webhook]:
        """Return the webhooks of a user, the oldest first."""
        rows = self._database.rows(
            "SELECT * FROM webhooks WHERE user = ? ORDER BY created_at, id", user_id
        )
        return [_webhook(row) for row in rows]

    def find(self, user_id: int, webhook_id: str) -> Webhook:
        """Return one webhook of a user.

        Raises:
            NotThere: The user has none of that id.
        """
        for each in self.of(user_id):
            if each.id == webhook_id:
                return each
        raise NotThere(f"There is no webhook {webhook_id[:40]}.")

    def update(self, user_id: int, webhook_id: str, wanted: dict[str, Any]) -> Webhook:
        """Change what is given of a webhook."""
        found, good = self.find(user_id, webhook_id), _checked(wanted)
        with self._database.write() as connection:
            for column, value in good.items():
                connection.execute(
                    f"UPDATE webhooks SET {column} = ? WHERE id = ?", (value, found.id)
                )
        return self.find(user_id, webhook_id)

    def delete(self, user_id: int, webhook_id: str) -> None:
        """Forget a webhook."""
        found = self.find(user_id, webhook_id)
        with self._database.write() as connection:
            connection.execute("DELETE FROM webhooks WHERE id = ?", (found.id,))

    def watching(self, repo: Repo, domain: str) -> list[Webhook]:
        """Return the active webhooks that a thing which happened to a repo may interest."""
        rows = self._database.rows("SELECT * FROM webhooks WHERE disabled = 0")
        found = [_webhook(row) for row in rows]
        return [each for each in found if domain in each.domains and each.watches(repo)]


def _checked(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that `wanted` gives, checked.

    An empty list of what is watched is left as it is: the client sends one when it has none.
    """
    good: dict[str, Any] = {}
    if wanted.get("jobSourceId") is not None:
        raise Malformed("This Hub runs no Jobs: give the webhook a url instead.")
    if wanted.get("url") is not None:
        good["url"] = _url(wanted["url"])
    if wanted.get("watched"):
        good["watched"] = json.dumps(_watched(wanted["watched"]))
    if wanted.get("domains") is not None:
        domains = wanted["domains"]
        if not isinstance(domains, list) or not domains or not set(domains) <= set(DOMAINS):
            raise Malformed(f"A webhook's domains are some of {', '.join(DOMAINS)}.")
        good["domains"] = json.dumps(sorted(set(domains), key=DOMAINS.index))
    if wanted.get("secret") is not None:
        secret = wanted["secret"]
        if not isinstance(secret, str) or not secret.isascii() or not secret.isprintable():
            raise Malformed("A webhook's secret is printable ASCII.")
        if len(secret) > MAX_SECRET:
            raise Malformed(f"A webhook's secret has at most {MAX_SECRET} characters.")
        good["secret"] = secret or None
    if "disabled" in wanted:
        good["disabled"] = bool(wanted["disabled"])
    return good


def _url(url: object) -> str:
    problem = Malformed(f"A webhook's url is http or https, at most {MAX_URL} characters long.")
    if not isinstance(url, str) or len(url) > MAX_URL or not url.isascii() or not url.isprintable():
        raise problem
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise problem from None
    if not good or " " in url or parts.username or parts.password:
        raise problem
    return url


def _watched(items: object) -> list[dict[str, str]]:
    problem = Malformed(
        f"A webhook watches 1 to {MAX_WATCHED} items, each with a name and a type"
        f" ({', '.join(KINDS)})."
    )
    if not isinstance(items, list) or len(items) > MAX_WATCHED:
        raise problem
    good = []
    for item in items:
        kind, name = (
            (item.get("type"), item.get("name")) if isinstance(item, dict) else (None, None)
        )
        if kind not in KINDS or not isinstance(name, str) or not 0 < len(name) <= 200:
            raise problem
        good.append({"type": str(kind), "name": name})
    return good


def _webhook(row: sqlite3.Row) -> Webhook:
    return Webhook(
        id=row["id"],
        user=row["user"],
        url=row["url"],
        watched=tuple(json.loads(row["watched"])),
        domains=tuple(json.loads(row["domains"])),
        secret=row["secret"],
        disabled=bool(row["disabled"]),
    )
