"""Other people's words on a terminal, and inside a command or a line of Python to be copied."""

from __future__ import annotations

import json
import re
import shlex

# Control characters, and those that turn the direction of the text after them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ufeff\u202a-\u202e\u2066-\u2069]")
_STYLE = re.compile("(\x1b\\[[01]m|[\n\t])")  # bold and its end, and what lays out a text


def visible(text: str) -> str:
    """Return `text` as a terminal may have it: what would command the terminal is spelt out."""
    pieces = _STYLE.split(text)  # every second one is such a mark
    pieces[::2] = [_UNSEEN.sub(_spell, piece) for piece in pieces[::2]]
    return "".join(pieces)


def visible_json(text: str) -> str:
    """Return JSON with every such character as its escape, which means the same."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _spell(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """Return `text` on one line, without characters that cannot be seen."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return _UNSEEN.sub("", " ".join(whole.split()))


def is_text(value: str) -> bool:
    """Tell whether UTF-8 can write `value`: not with bytes in it that a terminal passed on as they
    were, which no tokenizer reads."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def python_text(text: str) -> str:
    """Return a Python literal on one line."""
    return json.dumps(one_line(text), ensure_ascii=False)


def shell_word(text: str) -> str:
    """Return one word of a command line, in double quotes where any shell reads them alike."""
    text = one_line(text)
    if re.fullmatch(r"[\w ,.:;+()/@-]+", text):
        return f'"{text}"'
    return shlex.quote(text)
