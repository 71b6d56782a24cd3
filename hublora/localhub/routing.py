"""A route table over the raw path.

Clients quote a revision whole (`refs%2Fpr%2F1`), so the path is split before it is decoded, and
each piece is decoded exactly once. A template names its pieces:

    {kind}    models, datasets or spaces            {rev}    a revision, quoted or `refs/pr/1`
    {prefix}  the same as a page's prefix, or ''    {path}   the rest, slashes included
    {name}    any one segment                       {repo}   `owner/name`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from .problems import Refusal

_PIECES = {
    "kind": "(?P<kind>models|datasets|spaces)",
    "prefix": "(?:(?P<prefix>datasets|spaces)/)?",
    "repo": "(?P<repo>[^/]+/[^/]+)",
    "rev": "(?P<rev>refs/(?:pr|convert)/[^/]+|[^/]+)",
    "path": "(?P<path>.*)",
}
Handler = Callable[..., Any]


@dataclass(frozen=True)
class Route:
    """One line of a route table: methods and template, and the function that answers."""

    methods: str
    template: str
    handler: Handler

    def pattern(self) -> re.Pattern[str]:
        """Return the regular expression over the raw path."""
        parts = re.split(r"\{(\w+)\}", self.template)
        text = re.escape(parts[0])
        for name, literal in zip(parts[1::2], parts[2::2], strict=True):
            text += _PIECES.get(name, f"(?P<{name}>[^/]+)") + re.escape(literal)
        return re.compile(text)


class Router:
    """Finds the first route whose template and method fit."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [
            (route.pattern(), frozenset(route.methods.split()), route.handler) for route in routes
        ]

    def find(self, method: str, raw_path: str) -> tuple[Handler, dict[str, str]]:
        """Return the handler and the decoded pieces.

        Raises:
            Refusal: Nothing is there (404), or not with this method (405).
        """
        allowed: set[str] = set()
        wanted = "GET" if method == "HEAD" else method
        for pattern, methods, handler in self._routes:
            match = pattern.fullmatch(raw_path)
            if match is None:
                continue
            if wanted in methods:
                return handler, {k: decode(v) for k, v in match.groupdict("").items()}
            allowed |= methods
        if allowed:
            raise Refusal(405, "Method not allowed", {"Allow": ", ".join(sorted(allowed))})
        raise Refusal(404, "This Hub has nothing at this address.")


def decode(piece: str) -> str:
    """Decode percent-escapes once; what is not UTF-8 is nobody's name."""
    try:
        return unquote_to_bytes(piece).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise Refusal(400, "The address is not UTF-8.") from problem
