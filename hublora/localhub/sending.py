"""Sending content with ETag, ranges and conditions (RFC 9110), HEAD and GET from one place."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .patience import PIECE

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def in_pieces(send: Send) -> Send:
    """Return `send` for bodies of any size: no more waits for a slow reader than it can take."""

    async def answer(message: Message) -> None:
        body = memoryview(message.get("body", b""))
        if len(body) <= PIECE:
            await send(message)
            return
        for start in range(0, len(body), PIECE):
            more = start + PIECE < len(body) or message.get("more_body", False)
            piece = bytes(body[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    return answer


class Content(Response):
    """A file of this machine, or bytes, or the part of either that was asked for."""

    def __init__(
        self,
        request: Request,
        source: Path | bytes,
        size: int,
        etag: str,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        self._source = source
        self._start, self._length, status = 0, size, 200
        extra = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", **headers}
        if _matches(request.headers.get("if-none-match"), etag):
            status, self._length = 304, 0
        elif wanted := _asked_range(request, etag):
            span = _span(wanted, size)
            if span is None:
                status, self._length = 416, 0
                extra["Content-Range"] = f"bytes */{size}"
            else:
                status, (self._start, self._length) = 206, span
                end = self._start + self._length - 1
                extra["Content-Range"] = f"bytes {self._start}-{end}/{size}"
        if status != 304:
            extra["Content-Length"] = str(self._length)
            extra["Content-Type"] = media_type
        super().__init__(None, status, None)
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in extra.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it in pieces: memory stays the same however large the file."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        if scope["method"] == "HEAD" or self._length == 0:
            await send({"type": "http.response.body", "body": b""})
        elif isinstance(self._source, bytes):
            body = self._source[self._start : self._start + self._length]
            await send({"type": "http.response.body", "body": body})
        else:
            await self._send_file(self._source, send)

    async def _send_file(self, path: Path, send: Send) -> None:
        descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY)
        position, left = self._start, self._length
        try:
            while left:
                chunk = await asyncio.to_thread(os.pread, descriptor, min(PIECE, left), position)
                if not chunk:
                    raise OSError(f"{path.name} is shorter than it should be")
                position, left = position + len(chunk), left - len(chunk)
                message = {"type": "http.response.body", "body": chunk, "more_body": left > 0}
                await send(message)
        finally:
            os.close(descriptor)


def _matches(condition: str | None, etag: str) -> bool:
    if condition is None:
        return False
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in condition.split(",")]
    return "*" in tags or etag in tags


def _asked_range(request: Request, etag: str) -> re.Match[str] | None:
    """Return the range asked for, unless it was for another version (If-Range) or several."""
    condition = request.headers.get("if-range")
    if condition is not None and not _matches(condition, etag):
        return None
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    return match if match and (match[1] or match[2]) else None


def _span(wanted: re.Match[str], size: int) -> tuple[int, int] | None:
    """Return start and length of a range, or None when nothing of it exists."""
    first, last = wanted[1], wanted[2]
    if not first:
        length = min(int(last), size)
        return (size - length, length) if length else None
    start, end = int(first), min(int(last) if last else size - 1, size - 1)
    return (start, end - start + 1) if start < size and start <= end else None
