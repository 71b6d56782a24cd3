"""Chooses the licence of an updated card: the generated one, or one that a person set.

A comment in the body holds the licence as hublora would write it and as hublora last saw it:

    <!-- hublora:license openrail cc-by-nc-4.0 -->

A licence that differs from the written one was chosen by a person; one that differs from the last
seen one was changed since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hublora.cards.metadata import LICENSE_KEYS

_NOTE = re.compile(r"^<!-- hublora:license (\S+) (\S+) -->$", re.M)


@dataclass(frozen=True)
class _Standing:
    keys: dict[str, Any]
    chosen: bool
    edited: bool


def note(written: object, seen: object) -> str:
    """Return the comment for a card's body."""
    return f"<!-- hublora:license {_token(written)} {_token(seen)} -->"


def choose(
    old: Mapping[str, Any], old_body: str, new: Mapping[str, Any], new_body: str
) -> dict[str, Any]:
    """Return the front matter's licence keys for the new card, from both cards' front matter and
    bodies."""
    there, here = _standing(old, old_body), _standing(new, new_body)
    if here.edited:
        return here.keys
    return there.keys if there.edited or there.chosen else here.keys


def refresh(body: str, license: object) -> str:
    """Return `body` with `license` recorded as the last seen one."""
    return _NOTE.sub(lambda found: note(found[1], license), body)


def _standing(entries: Mapping[str, Any], body: str) -> _Standing:
    keys = {key: entries[key] for key in LICENSE_KEYS if key in entries}
    found = _NOTE.search(body)
    if found is None:
        return _Standing(keys, "license" in keys, "license" in keys)
    token = _token(keys.get("license"))
    return _Standing(keys, token != found[1], token != found[2])


def _token(license: object) -> str:
    return re.sub(r"[^\w.+,-]+", "", str(license)) if license else "unknown"
