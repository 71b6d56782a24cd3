"""What a signed-in person does on the pages: each form is one call of the API, and back again.

The browser sends the token with the form (see `/login`); `guard.check_origin` has made sure that a
page of this Hub, and no other site, asked for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.responses import RedirectResponse, Response

from ..call import Call
from ..routing import Route
from ..store.access import Right
from . import discussions, gates, refs

Answer = dict[str, Any]


def form(
    action: Callable[[Call], Answer], back: Callable[[Call, Answer], str]
) -> Callable[[Call], Response]:
    """Return a route that does `action` with a form's fields and leads to a page of the repo.

    Args:
        action: A route of the API that takes a JSON object of texts.
        back: The page below the repo's own, from the call and what the action answered.
    """

    def answer(call: Call) -> Response:
        fields = {name: values[0] for name, values in call.form().items()}
        place = call.repo(Right.KNOW).path
        made = action(replace(call, body=json.dumps(fields).encode()))
        return RedirectResponse(f"/{place}{back(call, made)}", 303)

    return answer


def like(call: Call) -> Answer:
    """Like a repo, or no longer: the field `liked` says which."""
    repo, author = call.take_part()
    call.store.repos.like(repo, call.caller.user_id, call.json().get("liked") == "yes")
    return {"author": author}


def _discussion(call: Call, made: Answer) -> str:
    return f"/discussions/{call.pieces['number']}"


_ONE = "/{prefix}{repo}/discussions/{number}"
ROUTES = [
    Route(
        "POST",
        "/{prefix}{repo}/discussions",
        form(discussions.create, lambda call, made: f"/discussions/{made['num']}"),
    ),
    Route("POST", _ONE + "/comment", form(discussions.comment, _discussion)),
    Route("POST", _ONE + "/status", form(discussions.set_status, _discussion)),
    Route("POST", _ONE + "/merge", form(discussions.merge, _discussion)),
    Route(
        "POST",
        "/{prefix}{repo}/revert/{rev}",
        form(refs.revert, lambda call, made: f"/commit/{made['commitOid']}"),
    ),
    Route("POST", "/{prefix}{repo}/like", form(like, lambda call, made: "")),
    Route("POST", "/{prefix}{repo}/access", form(gates.answer, lambda call, made: "")),
]
