"""Other people's words inside a shell command or a line of Python that is shown to be copied."""

from __future__ import annotations

import json
import re
import shlex

# Control characters, and those that turn the direction of the text after them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ufeff\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """Return `text` on one line, without characters that cannot be seen."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return _UNSEEN.sub("", " ".join(whole.split()))


def python_text(text: str) -> str:
    """Return a Python literal on one line."""
    return json.dumps(one_line(text), ensure_ascii=False)


def shell_word(text: str) -> str:
    """Return one word of a command line, in double quotes where any shell reads them alike."""
    text = one_line(text)
    if re.fullmatch(r"[\w ,.:;+()/@-]+", text):
        return f'"{text}"'
    return shlex.quote(text)
