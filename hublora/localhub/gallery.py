"""The pictures that a repo's page shows: a card's `widget` list, or a dataset's first ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .markdown import inside

MAX_PICTURES = 60
FIRST_PICTURES = 12
_CAPTIONS = ("text", "caption", "prompt")
_PICTURE = re.compile(r".+\.(png|jpe?g|webp|gif|mp4|webm)", re.IGNORECASE)
_OWN_RESOLVE = re.compile(r"https?://[^/]+/(?:datasets/|spaces/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)")


@dataclass(frozen=True)
class Picture:
    """One picture (or clip) of a gallery: a path in the repo and what made it."""

    path: str
    prompt: str
    negative_prompt: str = ""

    @property
    def moves(self) -> bool:
        """Whether it is a clip."""
        return self.path.lower().endswith((".mp4", ".webm"))


def pictures(card: dict[str, Any], repo_name: str) -> list[Picture]:
    """Return the pictures that a card shows, leaving out what is not a file of the repo."""
    widget = card.get("widget")
    found = []
    for item in widget if isinstance(widget, list) else []:
        output = item.get("output") if isinstance(item, dict) else None
        url = output.get("url") if isinstance(output, dict) else None
        path = _path(url, repo_name)
        if path is None:
            continue
        parameters = item.get("parameters")
        negative = parameters.get("negative_prompt") if isinstance(parameters, dict) else ""
        found.append(Picture(path, _text(item.get("text")), _text(negative)))
        if len(found) == MAX_PICTURES:
            break
    return found


def first_pictures(paths: Iterable[str], metadata: bytes) -> list[Picture]:
    """Return the first pictures of an image folder with their captions.

    Args:
        paths: Every file of the dataset.
        metadata: Content of the repo's metadata.jsonl; empty without one.
    """
    captions = dict(_captions(metadata))
    still = (Picture(path, captions.get(path, "")) for path in paths if _PICTURE.fullmatch(path))
    return list(islice((picture for picture in still if not picture.moves), FIRST_PICTURES))


def _captions(metadata: bytes) -> Iterator[tuple[str, str]]:
    """Yield path and caption of the lines that have both."""
    for line in metadata.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(name := row.get("file_name"), str):
            texts = (row[key] for key in _CAPTIONS if isinstance(row.get(key), str))
            yield name, _text(next(texts, ""))


def _path(url: object, repo_name: str) -> str | None:
    if not isinstance(url, str):
        return None
    own = _OWN_RESOLVE.fullmatch(url)
    if own and own[1].lower() == repo_name.lower():
        url = own[2].partition("?")[0]
    path = inside(url)
    return path if path and _PICTURE.fullmatch(path) else None


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "" if text.strip() == "-" else text.strip()[:2000]
