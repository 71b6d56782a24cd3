"""How requests to the Hub wait, repeat and fail: timeouts, retries, and the reason of a failure.

huggingface_hub's client has no timeout, and most of its calls are made once.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import _http

TIMEOUT = 120.0  # seconds without a byte; a commit of many files takes the Hub a while
_WAITS = (0.5, 1.0, 2.0)  # seconds before each repetition
_MAX_WAIT = 60.0  # seconds that a Hub may ask to wait before a repetition
_TEMPORARY = (429, 500, 502, 503, 504)
# Names, because huggingface_hub 1 is built on httpx and 2 on httpx2. A connection that is refused
# or times out is not in the list: it is refused again.
_BROKEN_OFF = ("ReadError", "WriteError", "RemoteProtocolError")

Result = TypeVar("Result")


def configure_client() -> None:
    """Give the clients of this process a timeout, and turn Xet off where only hf.co speaks it.

    A client factory or a setting of the user's own stays.
    """
    if getattr(_http, "_GLOBAL_CLIENT_FACTORY", None) is _http.default_client_factory:
        set_client_factory(_client_with_timeout)
    if not os.environ.get("HF_HUB_DISABLE_XET") and "huggingface.co" not in constants.ENDPOINT:
        constants.HF_HUB_DISABLE_XET = True


def _client_with_timeout() -> Any:
    client = _http.default_client_factory()
    client.timeout = TIMEOUT
    return client


def repeated(call: Callable[[], Result]) -> Result:
    """Make a call that may be made twice, and repeat it where the failure is temporary.

    A Hub that answers 429 or 5xx, or breaks the connection off, is asked again up to three times,
    after the time that its Retry-After names.
    """
    for wait in _WAITS:
        try:
            return call()
        except Exception as error:
            pause = _pause(error, wait)
            if pause is None:
                raise
            time.sleep(pause)
    return call()


def _pause(error: BaseException, wait: float) -> float | None:
    """Return the seconds until a call may be repeated; None if the failure is not temporary."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        status = getattr(response, "status_code", None)
        if status in _TEMPORARY:
            stated = response.headers.get("Retry-After", "") if response is not None else ""
            asked = float(stated) if stated.isdigit() else wait
            return asked if asked <= _MAX_WAIT else None
        if status is not None:
            return None
        if type(one).__name__ in _BROKEN_OFF:
            return wait
    return None


def reason_of(error: BaseException) -> str:
    """Return why the Hub could not be reached, as a clause: the certificate, the proxy, …"""
    chain = list(_chain(error))
    kinds = {type(one).__name__ for one in chain}
    root = chain[-1]
    said = (str(root).strip().splitlines() or [""])[0].rstrip(".") or type(root).__name__
    if any(isinstance(one, ssl.SSLError) for one in chain) or "CERTIFICATE" in said.upper():
        return f"its certificate or TLS failed ({said})"
    if "ProxyError" in kinds:
        return f"the proxy failed ({said})"
    if "ConnectTimeout" in kinds or "ReadTimeout" in kinds or "PoolTimeout" in kinds:
        return f"it did not answer in time ({said})"
    if "UnsupportedProtocol" in kinds:
        return "its address must start with https:// or http://"
    return said


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that caused it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
