"""Signed links for uploads: the clients send no token with a `PUT`, so the address itself is proof.

A link names what it is for (repo, object, size, part, who) and when it ends; the HMAC over all of
it makes every other use worthless.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from .store.errors import Forbidden

LIFETIME_SECONDS = 6 * 3600


def sign(secret: bytes, *what: object, expires: int | None = None) -> str:
    """Return the proof for an address: `<expiry>-<signature>`."""
    until = expires if expires is not None else int(time.time()) + LIFETIME_SECONDS
    text = "\n".join(str(part) for part in (until, *what))
    return f"{until}-{hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()}"


def check(secret: bytes, proof: str, *what: object) -> None:
    """Let a good proof pass.

    Raises:
        Forbidden: It is for something else, or has expired.
    """
    until, _, _ = proof.partition("-")
    if not (until.isascii() and until.isdigit() and len(until) < 12):
        raise Forbidden("This upload link is not valid.")
    expected = sign(secret, *what, expires=int(until))
    if not hmac.compare_digest(expected.encode(), proof.encode("utf-8", "replace")):
        raise Forbidden("This upload link is not valid.")
    if int(until) < time.time():
        raise Forbidden("This upload link has expired: ask for a new one.")
