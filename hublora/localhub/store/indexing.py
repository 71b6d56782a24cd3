"""What lists and searches know of a repo, read off its newest commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hublora import strict_yaml

from . import cards, tensors
from .git import DEFAULT_BRANCH, GitRepo
from .large import LargeFiles

MAX_WORDS = 50_000  # characters of a card's text that are searched
_MAX_PARAMETERS = 2**62  # what fits into SQLite's integers
_SEARCHED = (
    "title pretty_name tags base_model datasets instance_prompt license license_name library_name"
    " pipeline_tag language"
)


@dataclass(frozen=True)
class IndexEntry:
    """One repo as lists show, filter and search it.

    Attributes:
        head: The commit id of `main`.
        card: The README's metadata.
        tags: Tags that the Hub derives from card and files.
        pipeline_tag: The task a model is for.
        library_name: The library a model is for.
        modified_at: ISO 8601 time of the newest commit, UTC.
        parameters: How many numbers the top-level safetensors files hold, None without one.
        metadata: The words of the card's metadata that a search looks at.
        words: The card's text, at most `MAX_WORDS` characters.
    """

    head: str
    card: dict[str, Any]
    tags: list[str]
    pipeline_tag: str | None
    library_name: str | None
    modified_at: str
    parameters: int | None
    metadata: str
    words: str


def read_entry(git: GitRepo, large: LargeFiles, kind: str, moment: str | None) -> IndexEntry:
    """Return the entry of a repo; `moment` is when its newest commit was made, if that is known.

    git keeps whole seconds; lists order by milliseconds.
    """
    head = git.resolve(DEFAULT_BRANCH)
    files = [name.path for name in git.names(head, recursive=True) if not name.is_folder]
    readme = git.read_file(head, "README.md", cards.MAX_README_BYTES)
    card, model = cards.read(readme), kind == "model"
    _, body = strict_yaml.split_front_matter((readme or b"").decode("utf-8", "replace"))
    counts = parameters(git, large, head) if model else {}
    return IndexEntry(
        head=head,
        card=card,
        tags=cards.tags(kind, card, files),
        pipeline_tag=cards.pipeline_tag(card) if model else None,
        library_name=cards.library(card, files) if model else None,
        modified_at=moment or git.commit(head).date,
        parameters=min(sum(counts.values()), _MAX_PARAMETERS) if counts else None,
        metadata="\n".join(w for name in _SEARCHED.split() for w in cards.strings(card.get(name))),
        words=body[:MAX_WORDS],
    )


def parameters(git: GitRepo, large: LargeFiles, commit: str) -> dict[str, int]:
    """Return how many numbers the top-level safetensors files of a commit hold, by type."""
    counts: dict[str, int] = {}
    for entry in git.entries(commit):
        if entry.is_folder or not entry.path.endswith(".safetensors") or not entry.lfs:
            continue
        for dtype, count in tensors.parameters(large.path(entry.lfs.oid)).items():
            counts[dtype] = counts.get(dtype, 0) + count
    return counts
