"""Sockets, signals and the ready line of hublora's servers."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from hublora.errors import HubloraError


class ReadyServer(uvicorn.Server):
    """Says when it answers; to be told to stop is no failure.

    Args:
        config: uvicorn's.
        ready: Called once, when it answers.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gracefully on Ctrl-C and SIGTERM, and then just return."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def listen(host: str, port: int, backlog: int = 2048) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Name or address.
        port: Port; 0 takes a free one.
        backlog: Connections that may wait to be accepted.

    Raises:
        HubloraError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small answers at once (TCP_NODELAY).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        raise HubloraError(
            f"Cannot listen on {host}:{port}: {problem.strerror}.",
            "Take another port with --port, or a free one with --port 0.",
        ) from problem
    listener.listen(backlog)
    return listener
