"""User sections: the parts of a card's body that a person writes and an update keeps.

A section lies between two markers, each on a line of its own:

    <!-- hublora:keep 1a2b3c4d -->
    Text that a person wrote.
    <!-- /hublora:keep -->

The digits are a hash of the text as hublora last wrote or saw it: a text that no longer matches
was edited since. A section without digits, as a person types it, counts as edited.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

_MARKER = re.compile(r"^<!--[ \t]*(/?)hublora:keep(?:[ \t]+([0-9a-f]{8}))?[ \t]*-->[ \t]*$", re.M)
_OURS = re.compile(r"^(?=<!--[ \t]*/?hublora:)", re.M)
_COMMENT = re.compile(r"<!--.*?-->", re.S)


@dataclass(frozen=True)
class UserSection:
    """One user section.

    Attributes:
        text: Markdown between the markers.
        seen: First 8 hexadecimal digits of the hash of the text as hublora last saw it; None if
            it never did.
    """

    text: str
    seen: str | None = None

    @property
    def edited(self) -> bool:
        """Whether the text has changed since hublora last saw it."""
        return self.seen != _digest(self.text)

    @property
    def written(self) -> bool:
        """Whether the text is more than comments."""
        return bool(_COMMENT.sub("", self.text).strip())


def find(body: str) -> list[UserSection]:
    """Return the user sections in order; none if the markers do not pair up."""
    markers = list(_MARKER.finditer(body))
    if [bool(marker[1]) for marker in markers] != [False, True] * (len(markers) // 2):
        return []
    pairs = zip(markers[::2], markers[1::2], strict=True)
    return [UserSection(body[a.end() : b.start()].strip("\n"), a[2]) for a, b in pairs]


def mark(text: str) -> str:
    """Return `text` between markers, as a section that hublora has seen."""
    return f"<!-- hublora:keep {_digest(text)} -->\n{text}\n<!-- /hublora:keep -->"


def replace(body: str, texts: Sequence[str]) -> str:
    """Return `body` with `texts` as user sections in place of its first one, and no others."""
    markers = list(_MARKER.finditer(body))
    for start, end in reversed(list(zip(markers[2::2], markers[3::2], strict=True))):
        body = body[: start.start()].rstrip("\n") + "\n" + body[end.end() :]
    block = "\n\n".join(mark(text) for text in texts)
    return f"{body[: markers[0].start()]}{block}{body[markers[1].end() :]}"


def defuse(text: str) -> str:
    """Return `text` with hublora's comments indented, so that they are no markers."""
    return _OURS.sub(" ", text)


def _digest(text: str) -> str:
    # White space is left out: editors change line ends and trailing blanks on their own.
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).hexdigest()[:8]
