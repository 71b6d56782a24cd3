"""What huggingface.co has and this Hub has not: refused in a sentence instead of a riddle."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from ..call import Call
from ..problems import Refusal
from ..routing import Route
from ..store.errors import RepoNotFound

log = logging.getLogger("hublora.hub")
XET = "A client tried Xet, which is not spoken here: set HF_HUB_DISABLE_XET=1 in its environment."


def absent(what: str) -> Callable[[Call], Any]:
    """Return a route that says what this Hub has none of."""

    def answer(call: Call) -> Any:
        raise Refusal(404, f"This Hub has no {what}: see docs/hub-conformance.md.")

    return answer


def xet(call: Call) -> None:
    """GET …/xet-{read,write}-token/{rev}: the client hides the answer, so the log says it too."""
    log.warning(XET)
    raise Refusal(404, XET)


def without_owner(call: Call) -> None:
    """Answer for names such as `gpt2`, which belong to nobody here."""
    raise RepoNotFound(call.pieces["bare"])


_BELOW = re.compile(r"(\{kind\}/|\{prefix\})\{repo\}/")
_ANY = "GET POST PUT PATCH DELETE"
_CONTROLS = (
    "secrets",
    "variables",
    "hardware",
    "sleeptime",
    "pause",
    "restart",
    "dev-mode",
    "volumes",
)
_GROUPS = {
    "Jobs": ("/api/jobs/{path}", "/api/scheduled-jobs/{path}"),
    "buckets": ("/api/buckets", "/api/buckets/{path}"),
    "papers": ("/api/papers", "/api/papers/{path}", "/api/daily_papers"),
    "running Spaces": tuple(f"/api/spaces/{{repo}}/{what}" for what in _CONTROLS),
}
ROUTES = [
    *(Route(_ANY, place, absent(what)) for what, places in _GROUPS.items() for place in places),
    Route("GET", "/api/{kind}/{repo}/xet-write-token/{rev}", xet),
    Route("GET", "/api/{kind}/{repo}/xet-read-token/{rev}", xet),
    Route("GET", "/api/{kind}/{bare}", without_owner),
]


def bare(routes: Iterable[Route]) -> list[Route]:
    """Return a route for a name without an owner beside each that is below a repo.

    The clients tell a missing repo from a wrong address by the error code of the answer.
    """
    below = [route for route in routes if _BELOW.search(route.template)]
    return [
        Route(route.methods, route.template.replace("{repo}/", "{bare}/"), without_owner)
        for route in below
    ]
