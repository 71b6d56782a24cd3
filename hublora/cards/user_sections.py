"""The parts of a card's body that belong to a person.

A region lies between two markers, each on a line of its own:

    <!-- hublora:keep 1a2b3c4d -->
    A person's words.
    <!-- /hublora:keep -->

The digits are a digest of the words as hublora last wrote or saw them: words that no longer match
were edited since. Without digits, as a person types a region, they count as edited.
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
    """Somebody's words, and the digest of what they were when hublora last saw them."""

    words: str
    seen: str | None = None

    @property
    def edited(self) -> bool:
        return self.seen != _digest(self.words)

    @property
    def written(self) -> bool:
        """Whether there is more than a comment."""
        return bool(_COMMENT.sub("", self.words).strip())


def find(body: str) -> list[UserSection]:
    """Return the regions in order; none if the markers do not pair up."""
    markers = list(_MARKER.finditer(body))
    if [bool(marker[1]) for marker in markers] != [False, True] * (len(markers) // 2):
        return []
    pairs = zip(markers[::2], markers[1::2], strict=True)
    return [UserSection(body[a.end() : b.start()].strip("\n"), a[2]) for a, b in pairs]


def mark(words: str) -> str:
    """Return `words` as a region that hublora has seen."""
    return f"<!-- hublora:keep {_digest(words)} -->\n{words}\n<!-- /hublora:keep -->"


def replace(body: str, texts: Sequence[str]) -> str:
    """Put `texts` where the body has its first region, each as one; its other regions go."""
    markers = list(_MARKER.finditer(body))
    for start, end in reversed(list(zip(markers[2::2], markers[3::2], strict=True))):
        body = body[: start.start()].rstrip("\n") + "\n" + body[end.end() :]
    block = "\n\n".join(mark(words) for words in texts)
    return f"{body[: markers[0].start()]}{block}{body[markers[1].end() :]}"


def defuse(text: str) -> str:
    """Return `text` with hublora's comments moved off the start of the line, where none counts."""
    return _OURS.sub(" ", text)


def _digest(words: str) -> str:
    # White space is left out: editors change line ends and trailing blanks on their own.
    return hashlib.sha256(" ".join(words.split()).encode("utf-8", "replace")).hexdigest()[:8]
