"""Matching a path against many git patterns in one pass over the path, whatever they are.

Grammar: https://git-scm.com/docs/gitignore#_pattern_format. All patterns together are one automaton
without backtracking: each place in a pattern is a bit of one integer, and a step of the path moves
all of them (Baeza-Yates and Gonnet, "A new approach to text searching", 1992). So the time is the
length of the path times the length of the patterns in machine words; a regular expression's can
be exponential.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

MAX_PATTERN = 1024
_CLASS = re.compile(r"\[[!^]?\]?(?:[^\]\\/]|\\.)*\]")
_RANGE = re.compile(r"(\\.|.)-(\\.|.)|(\\.|.)", re.S)


@dataclass
class _Masks:
    """What the bits of the automaton mean."""

    literal: dict[str, int] = field(default_factory=dict)  # places that take this character
    classes: list[tuple[int, bool, tuple[tuple[str, str], ...]]] = field(default_factory=list)
    any_one: int = 0  # places that take any character but the slash
    star: int = 0  # places that may stay for any characters but slashes, or be left out
    deep: int = 0  # places that may stay for any characters, or be left out
    optional: int = 0  # places without a character: here the two after it may be left out
    start: int = 0
    end: int = 0
    end_of_folders: int = 0  # ends of patterns that mean folders alone


class Globs:
    """Some git patterns, of which the last one that matches counts."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Take in patterns, in their order; one that cannot be meant matches nothing."""
        self._masks = _Masks()
        self._starts: list[int] = []
        place = 0
        for pattern in patterns:
            self._starts.append(place)
            place = self._add(_bytes(pattern), place)
        self._steps: dict[str, int] = {}

    def last_match(self, path: str) -> int | None:
        """Return the number of the last pattern that matches the path of a file."""
        state = self._closed(self._masks.start)
        for character in _bytes(path):
            state = self._next(state, character)
        return self._number(state & self._masks.end & ~self._masks.end_of_folders)

    def matches_on_the_way(self, path: str) -> Iterable[int | None]:
        """Yield `last_match` of each folder on the way to a file, and then of the file."""
        state = self._closed(self._masks.start)
        for character in _bytes(path):
            if character == "/":
                yield self._number(state & self._masks.end)
            state = self._next(state, character)
        yield self._number(state & self._masks.end & ~self._masks.end_of_folders)

    def _number(self, ends: int) -> int | None:
        return bisect_right(self._starts, ends.bit_length() - 1) - 1 if ends else None

    def _next(self, state: int, character: str) -> int:
        masks = self._masks
        takes = self._steps.get(character)
        if takes is None:
            takes = self._steps[character] = self._takes(character)
        stays = masks.deep if character == "/" else masks.deep | masks.star
        return self._closed(((state & takes) << 1) | (state & stays))

    def _closed(self, state: int) -> int:
        """Return the places that can be reached without another character, too."""
        masks = self._masks
        state |= (state & masks.optional) << 1 | (state & masks.optional) << 3
        return state | (state & (masks.star | masks.deep)) << 1

    def _takes(self, character: str) -> int:
        mask = self._masks.literal.get(character, 0)
        if character == "/":
            return mask
        for bit, negated, ranges in self._masks.classes:
            if any(low <= character <= high for low, high in ranges) != negated:
                mask |= bit
        return mask | self._masks.any_one

    def _add(self, pattern: str, place: int) -> int:
        """Give the places of a pattern their bits from `place` on; return the next free place."""
        folders = pattern.endswith("/") and not pattern.endswith("\\/")
        body = pattern.rstrip("/") if folders else pattern
        anchored, body = "/" in body, body.removeprefix("/")
        elements = None if len(pattern) > MAX_PATTERN else _elements(body, anchored)
        if not elements:
            return place + 1
        masks = self._masks
        masks.start |= 1 << place
        for element in elements:
            element(masks, 1 << place)
            place += 1
        masks.end |= 1 << place
        masks.end_of_folders |= folders << place
        return place + 1


def _bytes(text: str) -> str:
    """Return a text's bytes, each as one character: git matches bytes."""
    return text.encode("utf-8", "replace").decode("latin-1")


def _elements(body: str, anchored: bool) -> list[partial[None]] | None:
    """Return what fills the places of a pattern; None if a bracket or backslash is left over."""
    folders = [partial(_optional), partial(_deep), partial(_literal, character="/")]
    elements = [] if anchored else list(folders)
    place, begins = 0, True  # whether a part of the path begins here
    while place < len(body):
        rest = body[place:]
        if begins and (run := re.match(r"(?:\*\*/)+", rest)):
            elements += folders
            place += run.end()
            continue
        if begins and rest == "**" and place:
            elements.append(partial(_deep))
            break
        begins = False
        if run := re.match(r"\*+", rest):
            elements.append(partial(_star))
            place += run.end()
        elif rest[0] == "?":
            elements.append(partial(_any_one))
            place += 1
        elif rest[0] == "[":
            found = _CLASS.match(rest)
            if found is None:
                return None
            elements.append(_class(found[0][1:-1]))
            place += found.end()
        elif rest[0] == "\\":
            if len(rest) == 1:
                return None
            elements.append(partial(_literal, character=rest[1]))
            place += 2
        else:
            elements.append(partial(_literal, character=rest[0]))
            begins = rest[0] == "/"
            place += 1
    return elements


def _literal(masks: _Masks, bit: int, character: str) -> None:
    masks.literal[character] = masks.literal.get(character, 0) | bit


def _any_one(masks: _Masks, bit: int) -> None:
    masks.any_one |= bit


def _star(masks: _Masks, bit: int) -> None:
    masks.star |= bit


def _deep(masks: _Masks, bit: int) -> None:
    masks.deep |= bit


def _optional(masks: _Masks, bit: int) -> None:
    masks.optional |= bit


def _class(inner: str) -> partial[None]:
    negated = inner[:1] in ("!", "^")
    ranges = tuple(
        (_plain(low or one), _plain(high or one))
        for low, high, one in _RANGE.findall(inner[negated:])
    )
    return partial(_one_of, negated=negated, ranges=ranges)


def _one_of(masks: _Masks, bit: int, negated: bool, ranges: tuple[tuple[str, str], ...]) -> None:
    masks.classes.append((bit, negated, ranges))


def _plain(text: str) -> str:
    return text[1:] if len(text) > 1 else text
