"""Discussions and pull requests: the words in SQLite, the changes in `refs/pr/N` of the repo.

Shapes follow https://huggingface.co/docs/hub/repositories-pull-requests-discussions.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .disk import now
from .errors import Conflict, Malformed, NotThere
from .git import DEFAULT_BRANCH, GitRepo
from .merging import conflicts, merge
from .repos import Repo
from .writing import Stage, advance, signature, standing_at

if TYPE_CHECKING:
    from . import Store

MAX_TITLE = 300
MAX_TEXT = 65_536
HIDDEN_TEXT = "This comment has been hidden"
_STILL_OPEN = ("open", "draft")


@dataclass(frozen=True)
class Event:
    """Something that happened in a discussion."""

    id: str
    kind: str
    author: str
    created_at: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Discussion:
    """A discussion, or a pull request with its branch `refs/pr/N`."""

    repo: str
    number: int
    title: str
    status: str
    is_pull_request: bool
    author: str
    base: str | None
    merge_commit: str | None
    created_at: str
    events: tuple[Event, ...] = field(default=(), compare=False)

    @property
    def ref(self) -> str:
        """Where a pull request's commits are."""
        return f"refs/pr/{self.number}"

    @property
    def is_open(self) -> bool:
        """Whether it still goes on."""
        return self.status in _STILL_OPEN


class Discussions:
    """Opens, finds, continues and ends discussions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def open(
        self,
        repo: Repo,
        title: object,
        text: object,
        author: str,
        *,
        pull_request: bool,
        status: str = "open",
    ) -> Discussion:
        """Open a discussion; a pull request gets a branch that stands where `main` does."""
        good_title, good_text = _title(title), _text(text)
        with self._store.lock(repo):
            with self._database.write() as connection:
                (number,) = connection.execute(
                    "SELECT COALESCE(MAX(number), 0) + 1 FROM discussions WHERE repo = ?",
                    (repo.id,),
                ).fetchone()
                connection.execute(
                    "INSERT INTO discussions (repo, number, title, status, is_pull_request,"
                    " author, base, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        repo.id,
                        number,
                        good_title,
                        status,
                        pull_request,
                        author,
                        f"refs/heads/{DEFAULT_BRANCH}" if pull_request else None,
                        now(),
                    ),
                )
            if pull_request:
                git = self._store.git(repo)
                advance(git, f"refs/pr/{number}", git.resolve(DEFAULT_BRANCH), None)
        self._note(repo, number, "comment", author, _comment(good_text, author))
        return self.find(repo, number)

    def find(self, repo: Repo, number: int) -> Discussion:
        """Return a discussion with all that happened in it.

        Raises:
            NotThere: There is none of that number.
        """
        row = self._database.row(
            "SELECT * FROM discussions WHERE repo = ? AND number = ?", repo.id, number
        )
        if row is None:
            raise NotThere(f"There is no discussion {number} in {repo.name}.")
        events = self._database.rows(
            "SELECT * FROM events WHERE repo = ? AND number = ? ORDER BY created_at, rowid",
            repo.id,
            number,
        )
        return _discussion(row, tuple(_event(event) for event in events))

    def by_ref(self, repo: Repo, ref: str) -> Discussion | None:
        """Return the pull request whose branch `ref` is."""
        number = ref.removeprefix("refs/pr/")
        return self.find(repo, int(number)) if ref != number and number.isdecimal() else None

    def page(
        self, repo: Repo, *, kind: str, status: str, author: str | None, skip: int, limit: int
    ) -> tuple[list[Discussion], int]:
        """Return a page of discussions, newest first, and how many there are."""
        where: list[str] = ["repo = ?"]
        values: list[Any] = [repo.id]
        if kind in ("discussion", "pull_request"):
            where.append("is_pull_request = ?")
            values.append(kind == "pull_request")
        if status in ("open", "closed"):
            where.append(f"status {'' if status == 'open' else 'NOT '}IN ('open', 'draft')")
        if author:
            where.append("author = ? COLLATE NOCASE")
            values.append(author)
        condition = " AND ".join(where)
        rows = self._database.rows(
            f"SELECT * FROM discussions WHERE {condition} ORDER BY number DESC LIMIT ? OFFSET ?",
            *values,
            limit,
            skip,
        )
        total = self._database.row(
            f"SELECT COUNT(*) AS n FROM discussions WHERE {condition}", *values
        )
        return [_discussion(row) for row in rows], total["n"] if total else 0

    # What may happen

    def comment(self, repo: Repo, found: Discussion, text: object, author: str) -> Event:
        """Add a comment."""
        good = _text(text)
        return self._note(repo, found.number, "comment", author, _comment(good, author))

    def edit(self, repo: Repo, found: Discussion, event_id: str, text: object, by: str) -> Event:
        """Replace a comment's text; what it said before stays in its history."""
        event = _comment_of(found, event_id)
        if event.data["hidden"]:
            raise Conflict("A hidden comment cannot be edited.")
        latest = _comment(_text(text), by)["latest"]
        history = [*event.data["history"], event.data["latest"]]
        return self._rewrite(event, {"edited": True, "latest": latest, "history": history})

    def hide(self, found: Discussion, event_id: str, by: str) -> Event:
        """Take a comment's text away for good."""
        event = _comment_of(found, event_id)
        latest = _comment(HIDDEN_TEXT, by)["latest"]
        return self._rewrite(event, {"hidden": True, "latest": latest, "history": []})

    def rename(self, repo: Repo, found: Discussion, title: object, author: str) -> Event:
        """Change the title."""
        good = _title(title)
        self._set(repo, found.number, "title", good)
        data = {"from": found.title, "to": good}
        return self._note(repo, found.number, "title-change", author, data)

    def set_status(self, repo: Repo, found: Discussion, status: object, author: str) -> Event:
        """Open or close; what is merged stays merged."""
        if status not in ("open", "closed"):
            raise Malformed("Invalid status: open or closed is wanted.")
        if found.status == "merged":
            raise Conflict("A merged pull request stays merged.")
        self._set(repo, found.number, "status", status)
        return self._note(repo, found.number, "status-change", author, {"status": status})

    def note_commit(self, repo: Repo, number: int, oid: str, title: str, author: str) -> None:
        """Tell in a pull request that a commit was added to its branch."""
        self._note(repo, number, "commit", author, {"oid": oid, "subject": title})

    def conflicting_files(self, git: GitRepo, found: Discussion) -> list[str]:
        """Return the files that keep a pull request from being merged."""
        if not found.is_open:
            return []
        return conflicts(git, git.resolve(DEFAULT_BRANCH), git.resolve(found.ref))

    def merge(self, repo: Repo, found: Discussion, author: str) -> str:
        """Merge a pull request into `main`; return the merge commit.

        Raises:
            Conflict: It is not open, or both sides changed the same files.
        """
        git, main = self._store.git(repo), f"refs/heads/{DEFAULT_BRANCH}"
        with self._store.lock(repo), Stage(git) as stage:
            if not self.find(repo, found.number).is_open or not found.is_pull_request:
                raise Conflict("Only an open pull request can be merged.")
            ours, theirs = git.resolve(DEFAULT_BRANCH), git.resolve(found.ref)
            tree = merge(stage, ours, theirs)
            title = f"{found.title} (#{found.number})\n"
            commit = stage.commit(tree, [ours, theirs], title, signature(author))
            stage.publish()
            self._store.commits.move(repo, git, main, commit, standing_at(git, main))
        self._set(repo, found.number, "status", "merged")
        self._set(repo, found.number, "merge_commit", commit)
        self._note(repo, found.number, "status-change", author, {"status": "merged"})
        return commit

    def _note(self, repo: Repo, number: int, kind: str, author: str, data: dict[str, Any]) -> Event:
        event = Event(secrets.token_hex(12), kind, author, now(), data)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO events (id, repo, number, kind, author, created_at, data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (event.id, repo.id, number, kind, author, event.created_at, json.dumps(data)),
            )
        return event

    def _rewrite(self, event: Event, changes: dict[str, Any]) -> Event:
        data = event.data | changes
        with self._database.write() as connection:
            connection.execute(
                "UPDATE events SET data = ? WHERE id = ?", (json.dumps(data), event.id)
            )
        return Event(event.id, event.kind, event.author, event.created_at, data)

    def _set(self, repo: Repo, number: int, column: str, value: object) -> None:
        with self._database.write() as connection:
            connection.execute(
                f"UPDATE discussions SET {column} = ? WHERE repo = ? AND number = ?",
                (value, repo.id, number),
            )


def _comment(text: str, author: str) -> dict[str, Any]:
    latest = {"raw": text, "updatedAt": now(), "author": {"name": author}}
    return {"edited": False, "hidden": False, "latest": latest, "history": []}


def _comment_of(found: Discussion, event_id: str) -> Event:
    for event in found.events:
        if event.id == event_id and event.kind == "comment":
            return event
    raise NotThere("There is no such comment.")


def _title(title: object) -> str:
    if not isinstance(title, str) or not 3 <= len(title.strip()) <= MAX_TITLE:
        raise Malformed(f"A title has 3 to {MAX_TITLE} characters.")
    return title.strip()


def _text(text: object) -> str:
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
        raise Malformed(f"A comment has 1 to {MAX_TEXT} characters.")
    return text


def _discussion(row: sqlite3.Row, events: tuple[Event, ...] = ()) -> Discussion:
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118
    values["is_pull_request"] = bool(values["is_pull_request"])
    return Discussion(**values, events=events)


def _event(row: sqlite3.Row) -> Event:
    return Event(row["id"], row["kind"], row["author"], row["created_at"], json.loads(row["data"]))
