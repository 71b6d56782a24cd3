"""How refusals look on the wire: one table from the store's exceptions to status and error code.

The codes are those that `hf_raise_for_status` of huggingface_hub turns into its exceptions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from .store import errors


@dataclass(frozen=True)
class Shape:
    """Status line and `X-Error-Code` of a kind of refusal."""

    status: int
    code: str | None = None


TABLE: dict[type[errors.StoreError], Shape] = {
    errors.RepoNotFound: Shape(404, "RepoNotFound"),
    errors.RevisionNotFound: Shape(404, "RevisionNotFound"),
    errors.EntryNotFound: Shape(404, "EntryNotFound"),
    errors.NotThere: Shape(404),
    errors.DamagedRepo: Shape(500, "DamagedRepo"),
    errors.NoCredentials: Shape(401),
    errors.BadCredentials: Shape(401),
    errors.Forbidden: Shape(403),
    errors.GatedRepo: Shape(403, "GatedRepo"),
    errors.AlreadyExists: Shape(409),
    errors.StaleParent: Shape(412),
    errors.Conflict: Shape(409),
    errors.Malformed: Shape(400),
    errors.InvalidPath: Shape(422),
    errors.TooLarge: Shape(413),
}


class Refusal(Exception):
    """A refusal that is about HTTP alone, for example a method that a path does not have."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def reply(problem: Exception, **facts: Any) -> Response:
    """Return the response that tells `problem` to a client."""
    headers: dict[str, str] = {}
    if isinstance(problem, errors.StoreError):
        shape = next(TABLE[kind] for kind in type(problem).__mro__ if kind in TABLE)
        if isinstance(problem, errors.EntryNotFound) and problem.commit:
            headers["X-Repo-Commit"] = problem.commit
    elif isinstance(problem, Refusal):
        shape, headers = Shape(problem.status), dict(problem.headers)
    else:
        shape = Shape(500)
        problem = RuntimeError("Internal error: the server's log says more.")
    message = problem.message if isinstance(problem, errors.StoreError) else str(problem)
    if isinstance(problem, errors.RepoNotFound):
        message = "Repository not found"  # as the Hub says it: the clients add the name themselves
    if shape.code:
        headers["X-Error-Code"] = shape.code
    headers["X-Error-Message"] = _header_text(message)
    if shape.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="hublora", charset="UTF-8"'
    body = json.dumps({"error": message, **facts}).encode()
    return Response(body, shape.status, headers, media_type="application/json")


def _header_text(message: str) -> str:
    """Return `message` as one header line: nothing from outside may end it early."""
    line = "".join(c if c.isprintable() else " " for c in message)
    return line.encode("latin-1", "replace").decode("latin-1")[:500].strip()
