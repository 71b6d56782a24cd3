"""Escapes text of other people for a terminal, a shell command and a line of Python."""

from __future__ import annotations

import json
import re
import shlex

# Control characters, and those that change the direction of the text after them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ufeff\u202a-\u202e\u2066-\u2069]")
_STYLE = re.compile("(\x1b\\[[01]m|[\n\t])")  # bold and its end, line feed, tab


def visible(text: str) -> str:
    """Return `text` with control characters escaped, except bold, line feeds and tabs."""
    pieces = _STYLE.split(text)  # the odd ones are the separators
    pieces[::2] = [_UNSEEN.sub(_spell, piece) for piece in pieces[::2]]
    return "".join(pieces)


def visible_json(text: str) -> str:
    """Return JSON text with control characters as \\u escapes, which parse to the same value."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _spell(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return _UNSEEN.sub("", " ".join(whole.split()))


def is_text(value: str) -> bool:
    """Return whether `value` encodes as UTF-8; raw bytes of a command line do not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def python_text(text: str) -> str:
    """Return `text` as a Python string literal on one line."""
    return json.dumps(one_line(text), ensure_ascii=False)


def shell_path(path: object) -> str:
    """Return a path or repo id as one shell word, quoted only where it must be."""
    return shlex.quote(one_line(str(path)))


def shell_word(text: str) -> str:
    """Return `text` as one shell word, in double quotes where every shell reads those alike."""
    text = one_line(text)
    if re.fullmatch(r"[\w ,.:;+()/@-]+", text):
        return f'"{text}"'
    return shlex.quote(text)
