"""The attacked server, and how an attack is written down."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECRET = b"TOP-SECRET-7f3a"
REFUSED = frozenset({400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 414, 415, 416, 422, 431})
Answer = int | str


@dataclass
class World:
    """A Hub with something to hide: `me/vault` is private, `me/gated` gated, `me/open` open."""

    url: str
    folder: Path
    owner: str
    eve: str
    reader: str
    one_repo: str
    revoked: str
    secret_oid: str
    secret_size: int
    vault_commit: str
    vault_id: str
    seen: list[bytes] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        token: str | None = None,
        **headers: str,
    ) -> int:
        """Make one request exactly as written: nothing is normalised on the way."""
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        if isinstance(body, dict):
            sent["content-type"] = "application/json"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if content is not None and "content-length" not in sent:
                connection.putheader("content-length", str(len(content)))
            connection.endheaders()
            try:
                if content:
                    connection.send(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough; what it says is still to be read
            answer = connection.getresponse()
            self.seen.append(answer.read(4 << 20) + str(answer.headers).encode())
            return answer.status
        except (ConnectionError, http.client.HTTPException, TimeoutError):
            return 400
        finally:
            connection.close()

    def commit(
        self, *lines: dict[str, Any], repo: str = "me/open", token: str | None = None
    ) -> int:
        """Commit operations as NDJSON."""
        header = {"key": "header", "value": {"summary": "attack"}}
        body = "".join(json.dumps(line) + "\n" for line in (header, *lines))
        return self.ask("POST", f"/api/models/{repo}/commit/main", body, token or self.owner)

    def trickle(self, *pieces: bytes) -> str:
        """Send pieces, each after a pause; return `cut` when the server has had enough."""
        where = urlsplit(self.url)
        with socket.create_connection((where.hostname, where.port), timeout=15) as wire:
            try:
                for piece in pieces:
                    wire.sendall(piece)
                    time.sleep(0.4)
                wire.settimeout(12)
                answer = wire.recv(65_536)
            except (ConnectionError, TimeoutError) as problem:
                return "open" if isinstance(problem, TimeoutError) else "cut"
            self.seen.append(answer)
            return answer.split(b" ")[1].decode() if answer.startswith(b"HTTP") else "cut"


@dataclass(frozen=True)
class Attack:
    """One line of the table."""

    area: str
    what: str
    act: Callable[[World], Answer | list[Answer]]
    accepts: frozenset[Answer] = frozenset()


def put(path: str) -> dict[str, Any]:
    """Return the operation that writes a small file."""
    value = {"path": path, "content": base64.b64encode(b"x").decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def large(oid: str, size: int) -> dict[str, Any]:
    """Return the operation that names a large file."""
    return {
        "key": "lfsFile",
        "value": {"path": "x.bin", "algo": "sha256", "oid": oid, "size": size},
    }


def batch(oid: str, size: int, operation: str = "upload") -> dict[str, Any]:
    """Return an LFS batch of one object."""
    return {
        "operation": operation,
        "transfers": ["basic"],
        "objects": [{"oid": oid, "size": size}],
    }
