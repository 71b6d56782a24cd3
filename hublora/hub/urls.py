"""Files that lie at a plain https URL, cached by content once they are what they should be."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from hublora.errors import HubError
from hublora.filesystem import cache_root, sha256_of, write_atomically
from hublora.hub.client import is_offline
from hublora.hub.download import Progress

MAX_BYTES = 2 << 30  # the largest LoRA adapters in use are well below 2 GiB
_TIMEOUT = 30  # seconds without a byte
_PATIENCE = 60  # seconds, after which a file must come at `_SLOWEST`
_SLOWEST = 1000  # bytes a second


def download_url(
    url: str,
    name: str = "adapter.safetensors",
    most: int = MAX_BYTES,
    progress: Progress | None = None,
    check: Callable[[Path], object] = lambda path: None,
) -> Path:
    """Return the local copy of the file at `url`.

    Copies are kept by what they hold. One that is there is used again as long as the server says
    that nothing has changed, says nothing about that, or is away.

    Args:
        url: https.
        name: What the copy is called.
        most: Bytes that it may have.
        progress: Told (done, total) in bytes.
        check: Raises if the file is not what it should be; then nothing of it stays.

    Raises:
        HubError: It cannot be fetched, redirects away from https or into a private network, is
            too large, or comes too slowly.
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
            assert known is not None, "only then was asked"
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
    """The server has what is here."""


def _known(record: Path, root: Path, name: str) -> tuple[Path | None, str]:
    """Return the copy of what lay at an address, and the tag that the server gave it."""
    try:
        entry = json.loads(record.read_text())
        path, tag = root / str(entry["sha256"]) / name, str(entry["etag"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, ""
    return (path, tag) if path.is_file() else (None, "")


def _fetch(url: str, file: IO[bytes], most: int, progress: Progress, tag: str) -> str:
    """Write what lies at an address into a file; return its tag, empty if it has none.

    Raises:
        HubError: It cannot be fetched whole.
        _Unchanged: It still has the tag that is known.
    """
    where = url.partition("?")[0]  # a query may hold a signature
    opener = urllib.request.build_opener(_CarefulRedirects)
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
                if waited > _PATIENCE and received < waited * _SLOWEST:
                    raise HubError(f"{where} comes too slowly.", "Try again later.")
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
        raise HubError(f"{where} broke off after {received:,} of {size:,} bytes.", "Try again.")
    return found


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only, and into no network that only this machine can reach."""

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
    """Tell whether a name stands for an address that is not of the public internet."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False  # it cannot be reached either
    return any(not ipaddress.ip_address(str(one).partition("%")[0]).is_global for one in found)
