"""Cleans captions and counts their tokens against the text encoder's limit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

CaptionLines = Literal["first", "join", "any"]
_LINE_END = re.compile(r"[\r\n\u2028\u2029]+")


def clean(caption: str) -> str:
    """Return `caption` on one line without control characters or repeated spaces.

    Zero-width joiners stay, since emoji consist of them.
    """
    visible = (
        " " if character.isspace() else character
        for character in caption
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cs")
    )
    return " ".join("".join(visible).split()).strip("\ufeff")


def as_captions(value: Any, lines: CaptionLines = "join", tags: bool = False) -> tuple[str, ...]:
    """Return the cleaned captions of a table cell: a string, a list of strings or lists, or None.

    Empty captions are left out; `data.caption_dropout` trains on the empty caption.

    Args:
        value: Cell of a table, or the text of a file.
        lines: Use of a text of several lines: its first line, all lines joined into one caption,
            or a caption in each.
        tags: Whether a list of strings is one caption, whose parts are joined by commas.
    """
    if isinstance(value, str):
        cleaned = [clean(value)] if lines == "join" else list(map(clean, _LINE_END.split(value)))
        filled = tuple(filter(None, cleaned))
        return filled[:1] if lines == "first" else filled
    if isinstance(value, (list, tuple)):
        captions = tuple(caption for one in value for caption in as_captions(one, lines))
        return (", ".join(captions),) if tags and captions else captions
    return ()


def count_truncated(
    captions: Iterable[str],
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    max_length: int,
    batch_size: int = 1024,
) -> int:
    """Return how many of `captions` the text encoder truncates.

    Args:
        captions: Captions; equal ones are tokenized once and counted each.
        count_tokens: Texts -> number of tokens of each, special tokens included, untruncated.
        max_length: Maximum number of tokens, special tokens included.
        batch_size: Texts that are tokenized at a time, at least 1.
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
    """Return a clause about truncated captions for the log; None without any."""
    if not truncated:
        return None
    verb = "is" if truncated == 1 else "are"
    longer = f"{truncated} of {total} captions {verb} longer than {max_length} tokens"
    return f"{longer} and will be truncated"
