"""Commits as lists show them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pygit2

from .disk import stamp


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """A commit as lists show it."""

    id: str
    title: str
    message: str
    author: str
    date: str
    parents: tuple[str, ...]


@functools.lru_cache(maxsize=50_000)
def _split_message(message: str) -> tuple[str, str]:
    title, _, body = message.partition("\n")
    return title.strip(), body.strip()


def commit_facts(commit: pygit2.Commit) -> CommitFacts:
    """Return the facts of a commit, however odd its author wrote it."""
    title, body = _split_message(_message(commit))
    return CommitFacts(
        id=str(commit.id),
        title=title,
        message=body,
        author=commit.author.raw_name.decode("utf-8", "replace"),
        date=stamp(commit.commit_time),
        parents=tuple(str(parent) for parent in commit.parent_ids),
    )


def _message(commit: pygit2.Commit) -> str:
    try:
        return commit.message
    except LookupError:  # its author claims an encoding that nobody knows
        return commit.raw_message.decode("utf-8", "replace")
