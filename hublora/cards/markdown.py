"""Escapes any text for Markdown.

Prompts, titles and names are written by others: they may contain backticks, HTML, pipes, newlines
or the markers of `hublora.cards.user_sections`, and are displayed unchanged.
"""

from __future__ import annotations

import re

from hublora.quoting import one_line

_ESCAPED = {character: f"\\{character}" for character in "`*_[]~#"} | {
    "\\": "&#92;",  # a backslash before one of ours would undo it
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "$": "&#36;",
}
_REPO = re.compile(r"\A[\w.-]+(/[\w.-]+)?\Z", re.ASCII)


def inline(text: str) -> str:
    """Return text escaped for a heading, a sentence or a table cell."""
    return "".join(_ESCAPED.get(character, character) for character in one_line(text))


def code(text: str) -> str:
    """Return a code span; not for table cells, which a pipe ends even inside a code span."""
    text = one_line(text) or " "
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def fence(*texts: str) -> str:
    """Return a code fence that none of `texts` can close."""
    return "`" * max(3, max(map(_longest_run, texts), default=0) + 1)


def repo_link(repo_id: str, kind: str = "") -> str:
    """Return a repo id as a link to its page, relative to the Hub that displays the card."""
    if not _REPO.match(repo_id):
        return code(repo_id)
    return f"[`{repo_id}`](/{kind}{repo_id})"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
