"""Captions: made clean, and counted against the text encoder's limit."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def clean(caption: str) -> str:
    """Return `caption` on one line: no control characters, single spaces, no space at its ends.

    Zero-width joiners stay, since emoji are made of them.
    """
    visible = (
        " " if character.isspace() else character
        for character in caption
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cs")
    )
    return " ".join("".join(visible).split()).strip("\ufeff")


def as_captions(value: Any) -> tuple[str, ...]:
    """Return the captions of one cell: a string, a list of strings or lists, or nothing.

    An empty one is none: whoever wants to train on the empty caption says so.
    """
    if isinstance(value, str):
        cleaned = clean(value)
        return (cleaned,) if cleaned else ()
    if isinstance(value, (list, tuple)):
        return tuple(caption for one in value for caption in as_captions(one))
    return ()


def count_truncated(
    captions: Iterable[str],
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    max_length: int,
    batch_size: int = 1024,
) -> int:
    """Return how many of `captions` are longer than the text encoder reads.

    Args:
        captions: Repeats are counted each time, and measured once.
        count_tokens: Tokens of each text, special tokens included, without truncation.
        max_length: Tokens that the text encoder reads, special tokens included.
    """
    captions = list(captions)
    distinct = list(dict.fromkeys(captions))
    too_long: set[str] = set()
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        lengths = zip(batch, count_tokens(batch), strict=True)
        too_long.update(text for text, tokens in lengths if tokens > max_length)
    return sum(caption in too_long for caption in captions)


def truncation_note(truncated: int, total: int, max_length: int) -> str | None:
    """Return the sentence for the run's log, or None when every caption fits."""
    if not truncated:
        return None
    verb = "is" if truncated == 1 else "are"
    return f"{truncated} of {total} captions {verb} longer than {max_length} tokens and will be cut"
