"""Connections that take without giving: who says too little, reads too slowly, or comes in crowds.

A request has seconds to begin, an answer has seconds to be taken piece by piece, and when there are
more connections than the process may have open files for, those that wait for nothing go first.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

PIECE = 128 << 10  # bytes of an answer that are handed to a connection at a time
ACCEPTED_AT_ONCE = 64
_MOST_FILES = 65_536
_RESERVED_FILES = 300  # for the database, packs, uploads and downloads
_LAST_WORDS_SECONDS = 5.0


def allow_connections() -> int:
    """Raise this process's limit of open files as far as may be; return the connections in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft - min(_RESERVED_FILES, soft // 2)


class PatientProtocol(H11Protocol):
    """HTTP/1.1 for one connection. A server makes a subclass of its own, with its own limits."""

    header_seconds = 20.0  # for a request's headers to arrive, trickled or not
    stall_seconds = 60.0  # for a reader to take the last piece of an answer
    most_connections = 1024
    waiting: ClassVar[dict[PatientProtocol, None]] = {}  # without a request, longest wait first
    _timer: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request; where there are too many, another one goes."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            longest = next(iter(self.waiting), self)
            longest.waiting.pop(longest, None)
            longest.transport.abort()
            if longest is self:
                return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes; wait on only while they do not yet make a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_waiting()
        self._stop_stalling()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Leave an idle connection to uvicorn's own keep-alive, and one that ends a last while."""
        self._stop_waiting()
        self.waiting[self] = None
        if self.transport.is_closing():
            self._end_within(self.stall_seconds)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the reader a while to take what has been written."""
        super().pause_writing()
        self._end_within(self.stall_seconds)

    def resume_writing(self) -> None:
        """Go on: the reader took it."""
        super().resume_writing()
        self._stop_stalling()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even one whose reader never takes the last bytes."""
        super().timeout_keep_alive_handler()
        self._end_within(_LAST_WORDS_SECONDS)

    def _wait(self) -> None:
        self.waiting[self] = None
        self._timer = self.loop.call_later(self.header_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
            self._end_within(_LAST_WORDS_SECONDS)

    def _end_within(self, seconds: float) -> None:
        self._stop_stalling()
        self._stall = self.loop.call_later(seconds, self.transport.abort)

    def _stop_stalling(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
