"""The images that a repo's page shows: a card's `widget` list, or a dataset's first ones."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .markdown import inside, own_file

MAX_IMAGES = 60
DATASET_IMAGES = 24  # on one page
_CAPTIONS = ("text", "caption", "prompt")
_IMAGE = re.compile(r".+\.(png|jpe?g|webp|gif|mp4|webm)", re.IGNORECASE)
_OWN_RESOLVE = re.compile(
    r"(?:https?://[^/]+)?/(?:datasets/|spaces/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)"
)


@dataclass(frozen=True)
class Image:
    """One image (or clip) of a gallery: a path in the repo and what made it."""

    path: str
    prompt: str
    negative_prompt: str = ""

    @property
    def moves(self) -> bool:
        """Whether it is a clip."""
        return self.path.lower().endswith((".mp4", ".webm"))


def images(card: dict[str, Any], repo_name: str, origin: str) -> list[Image]:
    """Return the images that a card shows, leaving out what is not a file of the repo."""
    widget = card.get("widget")
    found = []
    for item in widget if isinstance(widget, list) else []:
        output = item.get("output") if isinstance(item, dict) else None
        url = output.get("url") if isinstance(output, dict) else None
        path = _path(url, repo_name, origin)
        if path is None:
            continue
        parameters = item.get("parameters")
        negative = parameters.get("negative_prompt") if isinstance(parameters, dict) else ""
        found.append(Image(path, _text(item.get("text")), _text(negative)))
        if len(found) == MAX_IMAGES:
            break
    return found


def dataset_images(
    paths: Iterable[str], read: Callable[[str], bytes | None], skip: int
) -> tuple[list[Image], bool]:
    """Return a page of the images of an image folder with their captions, and if there are more.

    Args:
        paths: Every file of the dataset.
        read: The content of a small file, None when it is not there.
        skip: How many images come before.
    """
    still = (path for path in paths if _IMAGE.fullmatch(path) and not Image(path, "").moves)
    found = list(islice(still, skip, skip + DATASET_IMAGES + 1))
    shown = found[:DATASET_IMAGES]
    captions: dict[str, str] = {}
    for folder in dict.fromkeys(path.rpartition("/")[0] for path in shown):
        place = f"{folder}/" if folder else ""
        rows = _rows(read(f"{place}metadata.jsonl"), read(f"{place}metadata.csv"))
        captions |= {f"{place}{name}": text for name, text in rows}
    for path in shown:
        if not captions.get(path):
            beside = read(f"{path.rpartition('.')[0]}.txt") or b""
            captions[path] = _text(beside.decode("utf-8", "replace"))
    return [Image(path, captions[path]) for path in shown], len(found) > len(shown)


def _rows(jsonl: bytes | None, csv_text: bytes | None) -> Iterator[tuple[str, str]]:
    """Yield path and caption of the rows of a folder's metadata."""
    if jsonl is not None:
        yield from _captions(jsonl)
    elif csv_text is not None:
        try:
            for row in csv.DictReader(io.StringIO(csv_text.decode("utf-8-sig", "replace"))):
                texts = (row[key] for key in _CAPTIONS if row.get(key))
                yield str(row.get("file_name")), _text(next(texts, ""))
        except csv.Error:
            return


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


def _path(url: object, repo_name: str, origin: str) -> str | None:
    if not isinstance(url, str):
        return None
    own = _OWN_RESOLVE.fullmatch(own_file(url, origin) or url)
    if own and own[1].lower() == repo_name.lower():
        url = own[2].partition("?")[0]
    path = inside(url)
    return path if path and _IMAGE.fullmatch(path) else None


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "" if text.strip() == "-" else text.strip()[:2000]
