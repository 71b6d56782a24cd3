"""Which changes a browser may ask for, by the headers that it sends of itself."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from hublora.localhub.guard import check_origin
from hublora.localhub.problems import Refusal

PUBLIC = "https://hub.studio.example:8443"


def change(**headers: str) -> Request:
    """Return a request that changes something."""
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw})


@pytest.mark.parametrize(
    ("headers", "public_url"),
    [
        ({"host": "127.0.0.1:8000"}, None),  # a program: it names no origin
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, None),
        ({"host": "hub.studio.example:8443", "origin": PUBLIC}, PUBLIC),
        ({"host": "hub.studio.example", "origin": PUBLIC}, PUBLIC),  # nginx's $host has no port
        ({"host": "127.0.0.1:8000", "origin": PUBLIC, "sec_fetch_site": "same-origin"}, PUBLIC),
    ],
)
def test_a_page_of_this_hub_may_ask_for_changes(headers, public_url):
    check_origin(change(**headers), loopback=public_url is None, public_url=public_url)


@pytest.mark.parametrize(
    ("headers", "public_url"),
    [
        ({"host": "127.0.0.1:8000", "origin": "https://evil.example"}, None),
        ({"host": "127.0.0.1:8000", "origin": "null"}, None),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"}, None),
        ({"host": "evil.example", "origin": "http://evil.example"}, None),
        ({"host": "hub.studio.example", "origin": "https://evil.example"}, PUBLIC),
        ({"host": "hub.studio.example", "origin": "https://hub.studio.example:1"}, PUBLIC),
        ({"host": "hub.studio.example", "sec_fetch_site": "cross-site"}, PUBLIC),
        ({"host": "hub.studio.example", "sec_fetch_site": "same-site"}, PUBLIC),
    ],
)
def test_another_site_may_not(headers, public_url):
    with pytest.raises(Refusal):
        check_origin(change(**headers), loopback=public_url is None, public_url=public_url)
