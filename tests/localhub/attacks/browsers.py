"""What another site or a hostile link makes of a signed-in browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .world import Attack, World


def forms(w: World) -> list[Any]:
    """Fill in every form that a page may show, as everybody who is not offered it."""
    words = "title=A+title&description=words&comment=words&status=closed&liked=yes&user=eve"
    places = ["discussions", "discussions/1/comment", "like"]
    owners = ["discussions/1/merge", "discussions/1/status", "revert/main", "access"]
    return [
        *(
            w.ask("POST", f"/me/open/{place}", words, w.owner, origin="https://evil.example")
            for place in places + owners
        ),
        *(
            w.ask("POST", f"/me/open/{place}", words, token)
            for place in places + owners
            for token in (None, w.reader, w.revoked)
        ),
        *(w.ask("POST", f"/me/open/{place}", words, w.eve) for place in owners),
        *(
            w.ask("POST", f"/me/vault/{place}", words, token)
            for place in places + owners
            for token in (None, w.eve, w.revoked)
        ),
    ]


def browsers() -> Iterator[Attack]:
    yield Attack(
        "browsers",
        "a change that another site asks a signed-in browser for",
        lambda w: (
            [
                w.ask("POST", "/api/repos/create", {"name": "csrf"}, w.owner, origin=origin)
                for origin in ("https://evil.example", "null", "http://127.0.0.1:1")
            ]
            + [
                w.ask(
                    "DELETE",
                    "/api/repos/delete",
                    {"name": "open"},
                    w.owner,
                    sec_fetch_site="cross-site",
                )
            ]
        ),
    )
    yield Attack(
        "browsers",
        "the forms of a page: from another site, by nobody, by a stranger, by a token that reads",
        forms,
    )
    yield Attack(
        "browsers",
        "a name that only pretends to be this machine (DNS rebinding)",
        lambda w: w.trickle(b"GET /api/models HTTP/1.1\r\nhost: evil.example\r\n\r\n"),
        frozenset({"403"}),
    )
    yield Attack(
        "browsers",
        "markup in addresses, searches and error messages",
        lambda w: [
            w.ask("GET", "/models?search=%3Cscript%3Ealert(1)%3C/script%3E", accept="text/html"),
            w.ask("GET", "/%3Cscript%3E/%3Cscript%3E", accept="text/html"),
            w.ask("GET", "/me/open/blob/main/%3Cscript%3E", accept="text/html"),
        ],
        frozenset({200}),
    )
    yield Attack(
        "browsers",
        "a line break in an address, to write headers",
        lambda w: [
            w.ask("GET", "/me/open/resolve/main/a%0d%0aset-cookie:%20x=1"),
            w.ask("GET", "/api/models/me%0d%0aset-cookie:x/y"),
            w.ask("GET", "/login?next=%0d%0aset-cookie:x", accept="text/html"),
        ],
    )
