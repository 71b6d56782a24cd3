"""Downloads files from https URLs into a cache that is keyed by content."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from hublora.errors import HubError
from hublora.filesystem import cache_root, sha256_of, write_atomically
from hublora.hub.client import is_offline
from hublora.hub.download import Progress

MAX_BYTES = 2 << 30  # the largest LoRA adapters in use are well below 2 GiB
_TIMEOUT = 30  # seconds without a byte
_GRACE = 60  # seconds for the headers, and after which a download must have `_MIN_SPEED`
_MIN_SPEED = 1000  # bytes a second


def download_url(
    url: str,
    name: str = "adapter.safetensors",
    most: int = MAX_BYTES,
    progress: Progress | None = None,
    check: Callable[[Path], object] = lambda path: None,
) -> Path:
    """Return the cached copy of the file at `url`, downloaded if needed.

    A cached copy is used again if the server answers that it has not changed, sends no ETag, or
    cannot be reached.

    Args:
        url: An https URL.
        name: File name of the copy.
        most: Largest allowed size in bytes.
        progress: Called with (bytes done, bytes in all).
        check: Raises if the file is not of the expected kind; it is then not cached.

    Raises:
        HubError: It cannot be downloaded, redirects away from https or into a private network,
            is too large, or arrives too slowly.
    """
    root = cache_root() / "urls"
    record = root / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
    known, tag = _known(record, root, name)
    if known and (is_offline() or not tag):
        return known
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        temporary = Path(folder) / name
        try:
            with temporary.open("wb") as file:
                tag = _fetch(url, file, most, progress or (lambda done, total: None), tag)
                file.flush()
                os.fsync(file.fileno())
        except _Unchanged:
            assert known is not None, "an ETag is only sent along with a copy"
            return known
        except HubError:
            if known:
                return known
            raise
        check(temporary)
        content = sha256_of(temporary)
        final = root / content / name
        final.parent.mkdir(exist_ok=True)
        os.replace(temporary, final)
    write_atomically(record, json.dumps({"sha256": content, "etag": tag}))
    return final


class _Unchanged(Exception):
    """The server answered that the cached copy is current."""


def _known(record: Path, root: Path, name: str) -> tuple[Path | None, str]:
    """Return the cached copy for a URL's record and its ETag; (None, "") without one."""
    try:
        entry = json.loads(record.read_text())
        path, tag = root / str(entry["sha256"]) / name, str(entry["etag"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, ""
    return (path, tag) if path.is_file() else (None, "")


def _fetch(url: str, file: IO[bytes], most: int, progress: Progress, tag: str) -> str:
    """Download a URL into a file; return its ETag, empty if it has none.

    Raises:
        HubError: It cannot be downloaded completely.
        _Unchanged: Its ETag is still `tag`.
    """
    where = url.partition("?")[0]  # a query may hold a signature
    opener = urllib.request.build_opener(_SafeRedirects, _PatientHandler)
    request = urllib.request.Request(url, headers={"If-None-Match": tag} if tag else {})
    begun = time.monotonic()
    try:
        with opener.open(request, timeout=_TIMEOUT) as response:
            stated = response.headers.get("Content-Length", "")
            size = int(stated) if stated.isdigit() else 0
            received = 0
            while chunk := response.read1(1 << 20):
                received += len(chunk)
                if max(received, size) > most:
                    raise HubError(f"{where} is larger than {most >> 30} GiB.")
                waited = time.monotonic() - begun
                if waited > _GRACE and received < waited * _MIN_SPEED:
                    raise HubError(f"{where} arrives too slowly.", "Try again later.")
                file.write(chunk)
                progress(received, max(size, received))
            found = str(response.headers.get("ETag", ""))
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        if (
            tag
            and isinstance(error, urllib.error.HTTPError)
            and error.code == HTTPStatus.NOT_MODIFIED
        ):
            raise _Unchanged from error
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        said = " ".join(str(reason).split()).rstrip(".")
        raise HubError(f"{where} cannot be fetched: {said}.") from error
    if received < size:
        raise HubError(f"{where} ended after {received:,} of {size:,} bytes.", "Try again.")
    return found


class _PatientConnection(HTTPSConnection):
    """Gives a server `_GRACE` seconds for its headers, whatever it sends until then."""

    def getresponse(self) -> HTTPResponse:
        """Return the response once its headers are there.

        Raises:
            TimeoutError: They are not, though bytes may still come.
        """
        late = threading.Event()

        def give_up(wire: socket.socket) -> None:
            late.set()
            with contextlib.suppress(OSError):  # it has ended by itself
                wire.shutdown(socket.SHUT_RDWR)

        watch = threading.Timer(_GRACE, give_up, [self.sock])
        watch.daemon = True
        watch.start()
        failure: Exception | None = None
        try:
            response = super().getresponse()
        except (OSError, HTTPException) as error:
            failure = error
        finally:
            watch.cancel()
        if late.is_set():  # headers that were cut off may even look like an end
            raise TimeoutError(f"its headers did not come within {_GRACE} s") from failure
        if failure:
            raise failure
        return response


class _PatientHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        """Open an https URL."""
        return self.do_open(_PatientConnection, req)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only, and to no other host in a private network."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl.split('?')[0]}")
        host = urlsplit(newurl).hostname or ""
        if host != req.host.partition(":")[0] and _is_private(host):
            raise urllib.error.URLError(f"it redirects to {host}, which is in a private network")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_private(host: str) -> bool:
    """Return whether a host name resolves to an address outside the public internet."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False  # it cannot be connected to either
    return any(not ipaddress.ip_address(str(one).partition("%")[0]).is_global for one in found)
