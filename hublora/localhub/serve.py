"""Running the server: sockets, signals, the ready line, logs."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import uvicorn

from hublora.errors import HubloraError
from hublora.http_server import ReadyServer, listen

from .app import Hub, Settings
from .guard import MAX_HEADER_BYTES, is_loopback
from .patience import ACCEPTED_AT_ONCE, PatientProtocol, allow_connections
from .store import Store

log = logging.getLogger("hublora.hub")


def serve(
    data_dir: Path | str,
    settings: Settings,
    *,
    ready: Callable[[str, str | None], None],
    stop_with_stdin: bool = False,
    allow_remote: bool = False,
    tls: tuple[str, str] | None = None,
) -> None:
    """Serve a data folder until a signal comes (or stdin closes); calls `ready(url, token)` once.

    Raises:
        HubloraError: The address cannot be had, or is not loopback and nobody said so.
    """
    if not is_loopback(settings.host) and not allow_remote:
        raise HubloraError(
            f"{settings.host} can be reached from other machines.",
            "If that is wanted, add --allow-remote and read docs/running-a-hub.md.",
        )
    os.umask(0o077)  # whatever is stored is this user's alone
    store = Store(data_dir)
    alone = _only_server(store)
    store.recover()
    token = store.first_user(settings.user)
    listener = listen(settings.host, settings.port, ACCEPTED_AT_ONCE)
    port = listener.getsockname()[1]
    scheme = "https" if tls else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = settings.public_url or f"{scheme}://{host}:{port}"
    hub = Hub(store, replace(settings, port=port))
    server = ReadyServer(_config(hub, tls), lambda: ready(url, token))
    if stop_with_stdin:
        threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
    # Work in threads lets the event loop in every millisecond: who only asks for /health is served.
    sys.setswitchinterval(0.001)
    try:
        server.run(sockets=[listener])
    finally:
        hub.delivery.close()
        store.downloads.flush()
        alone.close()


def _config(hub: Hub, tls: tuple[str, str] | None) -> uvicorn.Config:
    limits = {
        "header_seconds": hub.settings.header_seconds,
        "stall_seconds": hub.settings.body_seconds,
        "most_connections": allow_connections(),
        "waiting": {},
    }
    return uvicorn.Config(
        hub,
        http=type("Protocol", (PatientProtocol,), limits),
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        backlog=ACCEPTED_AT_ONCE,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
    )


def _only_server(store: Store) -> IO[str]:
    """Hold the data folder against a second server; the kernel lets go when we die.

    Raises:
        HubloraError: Somebody serves it already.
    """
    lock = (store.folder / "locks" / "server").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        lock.close()
        raise HubloraError(
            f"Another Hub serves {store.folder} already.", "Use that one, or another --data folder."
        ) from problem
    return lock


def _stop_at_eof(server: Any) -> None:
    """Stop when whoever started us is gone: the kernel closes its end of the pipe."""
    while sys.stdin.buffer.read(4096):
        pass
    server.should_exit = True


def set_up_logs(verbose: bool = False) -> None:
    """Log to stderr, a line a request; tokens and signatures never get as far as a log line."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
