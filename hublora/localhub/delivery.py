"""Sending what webhooks ask for: one POST each, in threads of their own, never more than so many.

A Hub that other machines reach sends nothing to this machine itself nor to link-local addresses
(where clouds keep credentials): whoever may write here must not get to ask there. The address is
looked up once, checked, and connected to as it was checked. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import logging
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import urlsplit

from .store.webhooks import Webhook

log = logging.getLogger("hublora.hub")
TIMEOUT_SECONDS = 10
_THREADS = 4
_MAX_WAITING = 1000


class Delivery:
    """Takes payloads and sends them later; what waits is lost when the server stops.

    Args:
        anywhere: Whether addresses of this machine may be told, too.
    """

    def __init__(self, anywhere: bool) -> None:
        self._anywhere = anywhere
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook")
        self._waiting = BoundedSemaphore(_MAX_WAITING)

    def send(self, webhook: Webhook, payload: dict[str, Any]) -> None:
        """Send a payload to a webhook's address as soon as a thread is free."""
        if not self._waiting.acquire(blocking=False):
            log.warning("webhook %s is not told: %d others wait", webhook.id, _MAX_WAITING)
            return
        self._pool.submit(self._send, webhook, json.dumps(payload).encode())

    def close(self) -> None:
        """Give up what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, webhook: Webhook, body: bytes) -> None:
        try:
            status = post(webhook, body, self._anywhere)
            log.info("webhook %s answered %d", webhook.id, status)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            log.warning("webhook %s was not told: %s", webhook.id, problem)
        finally:
            self._waiting.release()


def post(webhook: Webhook, body: bytes, anywhere: bool) -> int:
    """Send one payload; return the status of the answer, which nobody reads.

    Raises:
        OSError: The address cannot be reached, or may not be.
    """
    parts = urlsplit(webhook.url)
    secure = parts.scheme == "https"
    host, port = str(parts.hostname), parts.port or (443 if secure else 80)
    wire = socket.create_connection((_address(host, port, anywhere), port), timeout=TIMEOUT_SECONDS)
    try:
        if secure:
            wire = ssl.create_default_context().wrap_socket(wire, server_hostname=host)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        connection.sock = wire
        headers = {"Content-Type": "application/json", "User-Agent": "hublora-webhook"}
        if webhook.secret:
            headers["X-Webhook-Secret"] = webhook.secret
        place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", place, body, {**headers, "Host": parts.netloc})
        return connection.getresponse().status
    finally:
        wire.close()


def _address(host: str, port: int, anywhere: bool) -> str:
    """Return an address of a host that may be told."""
    for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        closed = address.is_loopback or address.is_link_local or address.is_unspecified
        if anywhere or not (closed or address.is_multicast or address.is_reserved):
            return str(place[0])
    raise OSError(f"{host} is an address of this machine itself, which a shared Hub does not tell.")
