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
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from hublora.errors import HubError
from hublora.filesystem import cache_root, sha256_of, write_atomically
from hublora.hub.client import is_offline
from hublora.hub.download import Progress
from hublora.refs import public_url

MAX_BYTES = 2 << 30  # the largest LoRA adapters in use are well below 2 GiB
_TIMEOUT = 30  # seconds without a byte
_GRACE = 60  # seconds for the headers, and after which a download must have `_MIN_SPEED`
_MIN_SPEED = 1000  # bytes a second
_only_public = ContextVar("only_public", default=False)
_of_strangers: set[str] = set()  # URLs that may not be in a private network


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


@contextlib.contextmanager
def public_addresses_only() -> Iterator[None]:
    """Refuse, within the block, to fetch URLs from a private network, which a stranger named."""
    token = _only_public.set(True)
    try:
        yield
    finally:
        _only_public.reset(token)


def set_trust(url: str, trusted: bool) -> None:
    """Say whether a URL may be in a private network: not if a stranger's settings name it."""
    (_of_strangers.discard if trusted else _of_strangers.add)(url)


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
    where = public_url(url)
    stranger = _only_public.get() or url in _of_strangers
    trusted = None if stranger else urlsplit(url).hostname
    opener = urllib.request.build_opener(_SafeRedirects, _PatientHandler(trusted))
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
    """Gives a server `_GRACE` seconds for its headers, whatever it sends until then.

    Attributes:
        trusted: Host that may be in a private network; None for none.
    """

    trusted: str | None = None

    def connect(self) -> None:
        """Connect to the host, whose name is resolved once.

        Raises:
            PermissionError: It is in a private network, and not the trusted one.
        """
        # With a proxy, the proxy resolves the name.
        if self._tunnel_host is None and self.host != self.trusted:  # type: ignore[attr-defined]
            self._create_connection = _connect_publicly
        super().connect()

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
    def __init__(self, trusted: str | None) -> None:
        super().__init__()
        self._trusted = trusted

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        """Open an https URL."""

        def connect(host: str, **options: Any) -> _PatientConnection:
            connection = _PatientConnection(host, **options)
            connection.trusted = self._trusted
            return connection

        return self.do_open(connect, req)


def _connect_publicly(address: tuple[str, int], *options: Any) -> socket.socket:
    """Return a connection to a host in the public internet.

    Raises:
        PermissionError: It is in a private network.
    """
    host, port = address
    # Resolved here, and connected to by number: a second answer may differ.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if any(_is_private_number(str(info[4][0])) for info in found):
        raise PermissionError(f"{host} is in a private network")
    failure: OSError = OSError(f"{host} has no address")
    for info in found:
        try:
            return socket.create_connection((str(info[4][0]), port), *options)
        except OSError as error:
            failure = error
    raise failure


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
    return any(_is_private_number(str(one)) for one in found)


def _is_private_number(number: str) -> bool:
    return not ipaddress.ip_address(number.partition("%")[0]).is_global
