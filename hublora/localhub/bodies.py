"""Taking in what clients send: within a size, a pace, and the room that all have together."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from typing import IO, TypeVar

from starlette.requests import ClientDisconnect, Request

from .call import Call
from .problems import Refusal
from .store.errors import StoreError

Answer = TypeVar("Answer")
MAX_JSON_BYTES = 16 << 20
MAX_STRANGERS_BYTES = 4 << 20  # without a token
LEAST_BYTES_A_SECOND = 4096  # once the first minute is over


async def chunks(request: Request, limit: int, patience: float) -> AsyncIterator[bytes]:
    """Yield the body as it comes; a sender who says more than `limit` or falls silent is cut off.

    Raises:
        Refusal: Too much (413), or too slow (408).
    """
    announced = request.headers.get("content-length")
    if announced and announced.isdigit() and int(announced) > limit:
        raise Refusal(413, f"The body is larger than {limit} bytes.", {"Connection": "close"})
    stream, total, began = request.stream(), 0, time.monotonic()
    while True:
        left = began + patience + total / LEAST_BYTES_A_SECOND - time.monotonic()
        try:
            async with asyncio.timeout(min(patience, left)):
                chunk = await anext(stream, None)
        except TimeoutError as problem:
            raise Refusal(408, "The body came too slowly.", {"Connection": "close"}) from problem
        except ClientDisconnect as problem:
            raise Refusal(400, "The body ended early.") from problem
        if chunk is None:
            return
        total += len(chunk)
        if total > limit:
            raise Refusal(413, f"The body is larger than {limit} bytes.", {"Connection": "close"})
        yield chunk


async def read_body(request: Request, limit: int, patience: float) -> bytes:
    """Return the whole of a small body."""
    return b"".join([chunk async for chunk in chunks(request, limit, patience)])


class Room:
    """The memory for small bodies that are being answered, all of them together."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextlib.asynccontextmanager
    async def body(self, request: Request, limit: int, patience: float) -> AsyncIterator[bytes]:
        """Hold the whole of a small body.

        Raises:
            Refusal: It is too large (413) or too slow (408), or the others take all the room (503).
        """
        pieces, size = [], 0
        try:
            async for chunk in chunks(request, limit, patience):
                if len(chunk) > self._left:
                    headers = {"Retry-After": "5", "Connection": "close"}
                    raise Refusal(503, "Too much is being sent at the moment: try again.", headers)
                size += len(chunk)
                self._left -= len(chunk)
                pieces.append(chunk)
            yield b"".join(pieces)
        finally:
            self._left += size


async def ask_first(call: Call, question: Callable[[Call], Answer]) -> Answer:
    """Return the answer to `question` before any of the body is taken in.

    A refusal is sent once a body of ordinary size has been read to nowhere: who is still sending
    does not hear it.
    """
    try:
        return await asyncio.to_thread(question, call)
    except StoreError:
        announced = call.request.headers.get("content-length", "")
        if not announced.isdigit() or int(announced) <= MAX_JSON_BYTES:
            with contextlib.suppress(Refusal):
                async for _ in chunks(call.request, MAX_JSON_BYTES, call.settings.body_seconds):
                    pass
        raise


_spooled = 0  # bytes of all the bodies that `spool` holds at the moment


@contextlib.asynccontextmanager
async def spool(call: Call, limit: int) -> AsyncIterator[IO[bytes]]:
    """Hold the body as a file; small ones never touch the disk.

    Raises:
        Refusal: It is too large (413) or too slow (408), or others take all the room (503).
    """
    global _spooled
    folder, size = str(call.store.folder / "uploads"), 0
    with tempfile.SpooledTemporaryFile(max_size=4 << 20, dir=folder) as file:
        try:
            async for chunk in chunks(call.request, limit, call.settings.body_seconds):
                if _spooled + len(chunk) > call.settings.max_spooled_bytes:
                    raise Refusal(
                        503,
                        "Other commits take all the room at the moment: try again.",
                        {"Retry-After": "10", "Connection": "close"},
                    )
                size += len(chunk)
                _spooled += len(chunk)
                file.write(chunk)
            file.seek(0)
            yield file
        finally:
            _spooled -= size
