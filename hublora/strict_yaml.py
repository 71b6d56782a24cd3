"""Reading YAML that a stranger wrote: bounded, and nothing in it decides what becomes of it.

Values are those on which YAML 1.1 and 1.2 agree: true and false, null, plain decimal and
hexadecimal integers, floats with a point. Everything else is text, so that `no` is Norwegian,
`1:1:1` no base-60 number (whose value takes quadratic time), and a date its own letters. Tags are
refused. Aliases are followed, but what they stand for counts each time.

What `yaml.safe_dump` writes of text, numbers, lists and mappings is read back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 40
_MAX_FLOAT = 400
_FRONT_MATTER = re.compile(
    r"\A(?:\ufeff|\s)*---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*(?:\r?\n|\Z)", re.S | re.M
)


@dataclass(frozen=True)
class Limits:
    """How much a text may hold before it is refused."""

    characters: int = 1 << 20  # of the text, and of all that aliases stand for
    nodes: int = 20_000  # scalars, lists and mappings, those behind aliases each time
    depth: int = 24  # lists and mappings inside each other


class YamlError(ValueError):
    """A text that is refused; `line` is where, counted from 1, if it is about one place."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(f"{reason} (line {line})" if line else reason)
        self.line = line


def split_front_matter(readme: str) -> tuple[str, str]:
    """Return the front matter (YAML text, maybe empty) and the body of a card."""
    match = _FRONT_MATTER.match(readme)
    return (match[1], readme[match.end() :]) if match else ("", readme)


def loads(text: str, limits: Limits = Limits()) -> Any:
    """Return the one document of a YAML text as dicts, lists, text, numbers, booleans and None.

    Keys are text, as they were typed. A key that stands twice in one mapping is refused.

    Raises:
        YamlError: It is no YAML, has tags or a second document, or is more than `limits`.
    """
    if len(text) > limits.characters:
        raise YamlError(f"The text is longer than {limits.characters} characters")
    try:
        return _Builder(limits).build(yaml.parse(text, Loader=_Loader))
    except YamlError:
        raise
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        reason = getattr(problem, "problem", None) or getattr(problem, "reason", None)
        said = str(reason or problem).splitlines()[0][:200]
        if mark and _is_indented_by_tab(text, mark.line):
            said = "a tab indents it, and YAML takes spaces alone"
        raise YamlError(said, mark.line + 1 if mark else None) from problem
    except (ValueError, RecursionError, MemoryError) as problem:
        raise YamlError(str(problem)[:200] or "it cannot be read") from problem


@dataclass(slots=True)
class _Node:
    """A finished value with what it costs each time that it stands somewhere."""

    value: Any
    nodes: int = 1
    characters: int = 0
    height: int = 0  # lists and mappings inside each other, itself included


def _is_indented_by_tab(text: str, line: int) -> bool:
    found = next(islice(text.splitlines(), line, None), "")
    return "\t" in found[: len(found) - len(found.lstrip())]


class _Builder:
    """Makes the values of one document out of the parser's events, without recursion."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._anchors: dict[str, _Node] = {}
        self._open: list[_Open] = []
        self._nodes = self._characters = 0
        self._document: _Node | None = None

    def build(self, events: Iterator[Any]) -> Any:
        """Return the document's value."""
        for event in events:
            self._take(event)
        return self._document.value if self._document else None

    def _take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent) and self._document is not None:
            raise YamlError("a second document begins", line)
        tag: str = getattr(event, "tag", None) or ""
        if tag:
            raise YamlError(f"the tag {tag[:60]!r} is not taken", line)
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            value = _scalar(event.value, line) if plain else event.value
            node = _Node(value, characters=len(event.value))
            self._spend(1, node.characters, line)
            self._finish(node, event.anchor, line, typed=event.value, plain=plain)
        elif isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name not in self._anchors:
                raise YamlError(f"the alias *{name[:60]} stands for nothing finished", line)
            node = self._anchors[name]
            self._spend(node.nodes, node.characters, line)
            self._finish(node, None, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._spend(1, 0, line)
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(_Open(_Node({} if mapping else [], height=1), event.anchor))
            self._check_depth(0, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            self._finish(done.node, done.anchor, line)

    def _spend(self, nodes: int, characters: int, line: int) -> None:
        self._nodes += nodes
        self._characters += characters
        if self._nodes > self._limits.nodes:
            raise YamlError(f"more than {self._limits.nodes} values", line)
        if self._characters > self._limits.characters:
            raise YamlError(f"more than {self._limits.characters} characters", line)

    def _check_depth(self, height: int, line: int) -> None:
        if len(self._open) + height > self._limits.depth:
            raise YamlError(f"nested more than {self._limits.depth} levels deep", line)

    def _finish(
        self,
        node: _Node,
        anchor: str | None,
        line: int,
        typed: str | None = None,
        plain: bool = False,
    ) -> None:
        """Put a value where it belongs: into the list or mapping that is open."""
        if anchor is not None:
            self._anchors[anchor] = node
        self._check_depth(node.height, line)
        if not self._open:
            self._document = node
            return
        parent = self._open[-1]
        parent.take(node, line, typed, plain)
        parent.node.nodes += node.nodes
        parent.node.characters += node.characters
        parent.node.height = max(parent.node.height, node.height + 1)


class _Open:
    """A list or mapping that is not finished."""

    def __init__(self, node: _Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self._key: str | None = None
        self._merges = False
        self._merged: set[str] = set()

    def take(self, node: _Node, line: int, typed: str | None, plain: bool) -> None:
        """Add an item, a key, or the value of the key before."""
        whole = self.node.value
        if isinstance(whole, list):
            whole.append(node.value)
        elif self._key is None:
            if typed is None:
                raise YamlError("a key is a list, a mapping or an alias", line)
            self._key = typed
            self._merges = plain and typed == "<<"
            if self._key in whole and self._key not in self._merged:
                raise YamlError(f"the key {self._key[:60]!r} stands twice", line)
        else:
            if self._merges:
                self._merge(node.value, line)
            else:
                whole[self._key] = node.value
                self._merged.discard(self._key)
            self._key = None

    def _merge(self, value: Any, line: int) -> None:
        """Take over the entries of `<<: *other` that are not there (yaml.org/type/merge.html)."""
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                raise YamlError("'<<' merges mappings only", line)
            for key, inner in source.items():
                if key not in self.node.value:
                    self.node.value[key] = inner
                    self._merged.add(key)


def _scalar(text: str, line: int) -> Any:
    """Return what an unquoted text means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if not (text[0] in "+-." or "0" <= text[0] <= "9"):
        return text
    if _INTEGER.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise YamlError(f"a number of more than {_MAX_DIGITS} digits", line)
        return int(text, 16 if text.startswith("0x") else 10)
    if len(text) <= _MAX_FLOAT and _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.lower().replace(".", "", 1))
    return text
