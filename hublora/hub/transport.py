"""How requests to the Hub wait, repeat and fail: timeouts, retries, and the reason of a failure.

huggingface_hub's client has no timeout, most of its calls are made once, and the others wait as
long as a Hub asks them to.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import FileMetadataError, LocalEntryNotFoundError
from huggingface_hub.utils import _http, hf_raise_for_status

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
    client.event_hooks["response"].append(_refuse_long_waits)
    return client


def _refuse_long_waits(response: Any) -> None:
    """Raise for an answer that asks for more patience than a person has.

    Raises:
        HfHubHTTPError: In place of waiting.
    """
    if response.status_code in _TEMPORARY and (_asked_wait(response) or 0) > _MAX_WAIT:
        response.read()
        hf_raise_for_status(response)


def _asked_wait(response: Any) -> float | None:
    """Return the seconds that an answer's Retry-After names, None without one."""
    stated = response.headers.get("Retry-After", "") if response is not None else ""
    return float(stated) if stated.isdigit() else None


def repeated(call: Callable[[], Result]) -> Result:
    """Make a call that may be made twice, and repeat it where the failure is temporary.

    A Hub that answers 429 or 5xx, breaks the connection off or cuts a file short is asked again up
    to three times, after the time that its Retry-After names. What huggingface_hub has repeated
    is not repeated once more.
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
    if _was_repeated(error):
        return None
    if is_cut_off(error):
        return wait
    for one in _chain(error):
        response = getattr(one, "response", None)
        status = getattr(response, "status_code", None)
        if status in _TEMPORARY:
            asked = _asked_wait(response)
            pause = wait if asked is None else asked
            return pause if pause <= _MAX_WAIT else None
        if status is not None:
            return None
        if type(one).__name__ in _BROKEN_OFF:
            return wait
    return None


def _was_repeated(error: BaseException) -> bool:
    """Return whether huggingface_hub repeated the request itself before it gave up."""
    if isinstance(error, LocalEntryNotFoundError):  # whose tracebacks it cuts off
        return True
    return any(frame.f_locals.get("nb_tries", 1) > 1 for frame in _frames(error))


def ask_hub() -> None:
    """Make the smallest request to the Hub, once; whatever it answers, it is there."""
    from huggingface_hub.utils import get_session

    get_session().head(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, timeout=TIMEOUT)


def reason_of(error: BaseException) -> str:
    """Return why the Hub could not be reached, as a clause: the certificate, the proxy, …"""
    chain = list(_chain(error))
    kinds = {type(one).__name__ for one in chain}
    said = words_of(chain[-1])
    if any(isinstance(one, ssl.SSLError) for one in chain) or "CERTIFICATE" in said.upper():
        return f"its certificate or TLS failed ({said})"
    proxy = _proxy()
    if "ProxyError" in kinds or (proxy and kinds & {"ConnectError", "ConnectTimeout"}):
        return f"the proxy {proxy or 'of this machine'} failed ({said})"
    if "ConnectTimeout" in kinds or "ReadTimeout" in kinds or "PoolTimeout" in kinds:
        return f"it did not answer in time ({said})"
    if "UnsupportedProtocol" in kinds:
        return "its address must start with https:// or http://"
    return said


def _proxy() -> str | None:
    """Return the proxy that requests to the Hub go through, without a password; None without."""
    hub = urlsplit(constants.ENDPOINT)
    proxies = getproxies()
    proxy = proxies.get(hub.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(hub.netloc):
        return None
    return proxy.rpartition("@")[2].rpartition("://")[2]


def words_of(error: BaseException) -> str:
    """Return what an error says in one line without a full stop; its kind if it says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def is_misread(error: BaseException) -> bool:
    """Return whether huggingface_hub failed at reading an answer: one that no Hub gives."""
    if any(isinstance(one, FileMetadataError) for one in _chain(error)):
        return True
    kinds = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
    return isinstance(error, kinds) and _raised_in(error, "huggingface_hub", "httpx", "httpx2")


def is_cut_off(error: BaseException) -> bool:
    """Return whether huggingface_hub found a file shorter or longer than the Hub states."""
    return isinstance(error, OSError) and str(error).startswith("Consistency check failed")


def is_of_xet(error: BaseException) -> bool:
    """Return whether the storage protocol Xet failed."""
    return any("xet" in frame.f_code.co_name for frame in _frames(error))


def _raised_in(error: BaseException, *packages: str) -> bool:
    """Return whether the innermost frame, the standard library's left out, is of these packages."""
    last = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in sys.stdlib_module_names:
            last = package
    return last in packages


def _frames(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames that an error and those that caused it came through."""
    for one in _chain(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            yield frame


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that caused it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
