"""Updates a card without losing what a person wrote in it.

Body: generated anew, except for the user sections (`hublora.cards.user_sections`). Where a person
has removed the markers, the whole body is theirs and stays unchanged.

Front matter: generated keys are replaced, except for a licence that a person set and tags that
they added; all other keys stay as they were typed.

Both cards may have been edited: the one on the Hub in its editor, the new one in its folder. If
their user sections differ, the edited one stays; if both were edited, both stay.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any

import yaml

from hublora import strict_yaml
from hublora.cards import licenses, metadata, user_sections
from hublora.cards.user_sections import UserSection
from hublora.families import FAMILIES

_TITLE = re.compile(r"\A\s*#[ \t][^\n]*\n")
_GALLERY = re.compile(r"^<Gallery\s*/>[ \t]*$\n?", re.M)


def merge_card(previous: str, new: str) -> str:
    """Return the card `new` with what a person wrote in `previous`.

    Args:
        previous: Text of the card on the Hub; empty if there is none.
        new: Text of the card that is about to be pushed.
    """
    old_yaml, old_body = metadata.split(previous)
    new_yaml, new_body = metadata.split(new)
    old, fresh = _read(old_yaml), _read(new_yaml)
    written = {
        key: value
        for key, value in fresh.items()
        if key in metadata.GENERATED_KEYS and key not in metadata.LICENSE_KEYS
    }
    license = licenses.choose(old, old_body, fresh, new_body)
    entries = {**written, **license, "tags": _merge_tags(old, fresh)}
    foreign = {**_foreign_lines(old_yaml), **_foreign_lines(new_yaml)}
    body = _merge_bodies(old_body, new_body, ours="hublora" in _tags(old))
    return metadata.join(
        metadata.dump({key: entries[key] for key in metadata.GENERATED_KEYS if key in entries})
        + "".join(foreign.values()),
        licenses.refresh(body, license.get("license")),
    )


def _merge_bodies(old: str, new: str, ours: bool) -> str:
    mine = user_sections.find(new)
    if not mine:
        return new  # edited as a whole in its folder, which has the only copy
    theirs = user_sections.find(old)
    if not theirs and old.strip():
        if ours:
            return old
        # A card that hublora did not write: all of its text is a person's.
        theirs = [UserSection(user_sections.defuse(_GALLERY.sub("", _TITLE.sub("", old))).strip())]
    texts = [text for pair in zip_longest(theirs, mine) for text in _choose(*pair)]
    return user_sections.replace(new, texts)


def _choose(old: UserSection | None, new: UserSection | None) -> list[str]:
    """Return the texts to keep of two versions of a user section; None where it is missing."""
    if old is None or new is None or old.text == new.text:
        return [section.text for section in (old or new,) if section]
    if old.edited and new.edited:
        return [section.text for section in (old, new) if section.written] or [new.text]
    if old.edited or new.edited:
        return [old.text if old.edited else new.text]
    return [old.text if old.written else new.text]


def _merge_tags(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    of_families = {tag for family in FAMILIES.values() for tag in family.card_tags}
    added = [tag for tag in _tags(old) if tag not in of_families]
    return list(dict.fromkeys([*_tags(new), *added]))


def _tags(entries: dict[str, Any]) -> list[str]:
    tags = entries.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _foreign_lines(yaml_text: str) -> dict[str, str]:
    """Return the lines of each key that hublora does not write, as they were typed.

    Loading and dumping them would lose comments and turn `language: no` into false.
    """
    node = _compose(yaml_text)
    if node is None or node.flow_style:
        return {}
    starts = [key.start_mark.index for key, _ in node.value]
    ends = [*starts[1:], len(yaml_text)]
    lines = {
        str(key.value): yaml_text[start:end].rstrip("\n") + "\n"
        for (key, _), start, end in zip(node.value, starts, ends, strict=True)
        if key.value not in metadata.GENERATED_KEYS
    }
    return {key: text for key, text in lines.items() if _read(text)}


def _read(yaml_text: str) -> dict[str, Any]:
    """Return the entries of the front matter; empty if it cannot be read safely."""
    if _compose(yaml_text) is None:
        return {}
    try:
        return dict(strict_yaml.loads(yaml_text))
    except strict_yaml.YamlError:
        return {}


def _compose(yaml_text: str) -> yaml.MappingNode | None:
    """Return the YAML tree of a mapping; None for anything else and for one with aliases.

    Aliases can make a small text endless, and lines with one cannot be moved on their own.
    """
    try:
        strict_yaml.loads(yaml_text)  # bounded before the slower parser looks, which has the places
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(yaml_text)):
            return None
        node = yaml.compose(yaml_text, Loader=yaml.SafeLoader)
    except (strict_yaml.YamlError, yaml.YAMLError, RecursionError):
        return None
    return node if isinstance(node, yaml.MappingNode) else None
