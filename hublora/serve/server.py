"""Runs the server until a signal comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from hublora.errors import ConfigError
from hublora.http_server import ReadyServer, listen
from hublora.localhub.guard import is_loopback
from hublora.serve.app import create_app
from hublora.serve.service import Service


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: Name or address.
        port: Port; 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 8001


def serve(service: Service, address: Address, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; what was accepted is finished.

    Args:
        service: Engine and settings, not yet loaded.
        address: Host and port.
        ready: Called once with the URL, when the server answers; the base may still be loading.

    Raises:
        ConfigError: Other machines could use it without a key.
        HubloraError: The address cannot be had.
    """
    if service.settings.key is None and not is_loopback(address.host):
        raise ConfigError(
            f"{address.host} can be reached from other machines, and there is no key.",
            "Set one: export HUBLORA_SERVE_KEY=…",
        )
    listener = listen(address.host, address.port)
    host = f"[{address.host}]" if ":" in address.host else address.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        create_app(service),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(service.timeout) + 5,
    )
    ReadyServer(config, lambda: ready(url)).run(sockets=[listener])
