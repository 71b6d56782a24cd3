"""Files that lie at a plain https URL, cached by address."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from hublora.errors import HubError
from hublora.filesystem import cache_root
from hublora.hub.download import Progress

MAX_BYTES = 2 << 30  # the largest LoRA adapters in use are well below 2 GiB
_TIMEOUT = 30  # seconds without a byte


def download_url(
    url: str,
    name: str = "adapter.safetensors",
    most: int = MAX_BYTES,
    progress: Progress | None = None,
) -> Path:
    """Return the local copy of the file at `url`, downloading it once.

    Args:
        url: https.
        name: What the copy is called.
        most: Bytes that it may have.
        progress: Told (done, total) in bytes.

    Raises:
        HubError: It cannot be fetched, redirects away from https, or is too large.
    """
    final = cache_root() / "urls" / hashlib.sha256(url.encode()).hexdigest() / name
    if final.is_file():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=final.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _fetch(url, file, most, progress or (lambda done, total: None))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return final


def _fetch(url: str, file: IO[bytes], most: int, progress: Progress) -> None:
    where = url.partition("?")[0]  # a query may hold a signature
    opener = urllib.request.build_opener(_HttpsOnly)
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            stated = response.headers.get("Content-Length", "")
            size = int(stated) if stated.isdigit() else 0
            received = 0
            while chunk := response.read(1 << 20):
                received += len(chunk)
                if received > most:
                    raise HubError(f"{where} is larger than {most >> 30} GiB.")
                file.write(chunk)
                progress(received, max(size, received))
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise HubError(f"{where} cannot be fetched: {error}.") from error
    if received < size:
        raise HubError(f"{where} broke off after {received:,} of {size:,} bytes.", "Try again.")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

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
        return super().redirect_request(req, fp, code, msg, headers, newurl)
