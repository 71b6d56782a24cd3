"""Puts any text into Markdown without it becoming Markdown.

Prompts, titles and names are other people's words: they may hold backticks, HTML, pipes, newlines
or the markers that a card is merged by, and must still be shown as they are.
"""

from __future__ import annotations

import json
import re
import shlex

# Control characters, and those that turn the direction of the text after them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ufeff\u202a-\u202e\u2066-\u2069]")
_ESCAPED = {character: f"\\{character}" for character in "`*_[]~#"} | {
    "\\": "&#92;",  # a backslash before one of ours would undo it
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "$": "&#36;",
}
_REPO = re.compile(r"\A[\w.-]+(/[\w.-]+)?\Z", re.ASCII)


def one_line(text: str) -> str:
    """Return `text` on one line, without characters that cannot be seen."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return _UNSEEN.sub("", " ".join(whole.split()))


def inline(text: str) -> str:
    """Return plain text for a heading, a sentence or the cell of a table."""
    return "".join(_ESCAPED.get(character, character) for character in one_line(text))


def code(text: str) -> str:
    """Return a code span; not for tables, where a pipe ends the cell even inside one."""
    text = one_line(text) or " "
    ticks = "`" * (_longest_run(text) + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{room}{text}{room}{ticks}"


def fence(*texts: str) -> str:
    """Return a code fence that none of `texts` can close."""
    return "`" * max(3, max(map(_longest_run, texts), default=0) + 1)


def repo_link(repo_id: str, kind: str = "") -> str:
    """Return a repo's name as a link to its page on whichever Hub shows the card."""
    if not _REPO.match(repo_id):
        return code(repo_id)
    return f"[`{repo_id}`](/{kind}{repo_id})"


def python_text(text: str) -> str:
    """Return a Python literal on one line."""
    return json.dumps(one_line(text), ensure_ascii=False)


def shell_word(text: str) -> str:
    """Return one word of a command line, in double quotes where any shell reads them alike."""
    text = one_line(text)
    if re.fullmatch(r"[\w ,.:;+()/@-]+", text):
        return f'"{text}"'
    return shlex.quote(text)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
