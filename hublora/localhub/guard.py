"""What no page of another site may make a browser do here.

A browser that is signed in sends the token with every request to this server, whoever made it send
one. So changes that another site asked for are refused, and so is a name that only pretends to be
this machine (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request

from .problems import Refusal

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_HEADERS = 200
MAX_HEADER_BYTES = 32 << 10
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_headers(request: Request) -> None:
    """Refuse a request whose headers are more than any client sends.

    Raises:
        Refusal: They are too many or too long, or tell two lengths of the body.
    """
    raw = request.headers.raw
    total = len(request.scope["raw_path"]) + sum(len(name) + len(value) for name, value in raw)
    if len(raw) > MAX_HEADERS or total > MAX_HEADER_BYTES:
        raise Refusal(431, "The headers are too long.", {"Connection": "close"})
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        # A proxy in front may believe the other one: then what follows is another's request.
        message = "Content-Length and Transfer-Encoding exclude each other (RFC 9112, 6.1)."
        raise Refusal(400, message, {"Connection": "close"})


def check_origin(request: Request, *, loopback: bool, public_url: str | None = None) -> None:
    """Let a request pass that a person or a program of this Hub's own meant.

    Args:
        request: The request, of which only headers and method are looked at.
        loopback: Whether only this machine's own names are to be answered.
        public_url: The address that people use when a proxy stands in front; a proxy may have
            put a name of its own, or none of the port, into `Host`.

    Raises:
        Refusal: Another site is behind it.
    """
    host = request.headers.get("host", "")
    name = _name(f"//{host}")
    if loopback and name not in _LOOPBACK_NAMES:
        raise Refusal(403, "This Hub answers to this machine only.")
    if not name:
        raise Refusal(400, "The Host header names no host.")
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin")
    own = {host, urlsplit(public_url).netloc} if public_url else {host}
    if origin is not None and urlsplit(origin).netloc not in own:
        raise Refusal(403, "Another site asked for this change.")
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Refusal(403, "Another site asked for this change.")


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
