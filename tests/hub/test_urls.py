"""Adapters at plain https URLs: what servers do wrong is a sentence, and nothing of it stays."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import save

from hublora.errors import AdapterError, HubError, HubloraError
from hublora.filesystem import cache_root
from hublora.hub import urls
from hublora.refs import AdapterRef
from hublora.resolution.adapter import download_adapter

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")

GOOD = save({"unet.a.lora_A.weight": torch.ones(2, 4), "unet.a.lora_B.weight": torch.ones(4, 2)})


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    def do_GET(self) -> None:
        kind = self.path.strip("/").split("/")[0]
        if kind in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[kind].format(port=self.server.server_port))
            self.end_headers()
            return
        if kind in NEVER_BEGIN:
            self._go_on(0.05, NEVER_BEGIN[kind])
            return
        body, stated = BODIES[kind]
        tag = TAGS.get(kind)
        if tag and self.headers.get("If-None-Match") == tag:
            ASKED.append(tag)
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(404 if kind == "missing" else 200)
        if tag:
            self.send_header("ETag", tag)
        if stated is not None:
            self.send_header("Content-Length", str(stated))
        self.end_headers()
        self.wfile.write(body)
        if kind in ("hang", "drip"):
            self._go_on(0.05 if kind == "drip" else 2)

    def _go_on(self, pause: float, piece: bytes = b"x") -> None:
        try:
            for _ in range(40 if pause < 1 else 1):
                time.sleep(pause)
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            pass  # the client has gone

    def log_message(self, *args: object) -> None:
        pass


# Kind -> what is sent, and the length that is stated.
BODIES: dict[str, tuple[bytes, int | None]] = {
    "good": (GOOD, len(GOOD)),
    "page": (b"<html>Please log in</html>", None),
    "pickle": (b"\x80\x02}q\x00.", None),
    "nothing": (b"", 0),
    "missing": (b"no", 2),
    "more": (GOOD, len(GOOD) + 100),
    "less": (GOOD, len(GOOD) - 10),
    "huge": (GOOD, 3 << 30),
    "hang": (GOOD[:10], len(GOOD)),
    "drip": (GOOD[:10], len(GOOD)),
}
# Kind -> what comes again and again instead of the end of the headers.
NEVER_BEGIN = {
    "slow-headers": b"HTTP/1.1 200 OK\r\n",
    "only-continue": b"HTTP/1.1 100 Continue\r\n\r\n",
}
TAGS: dict[str, str] = {}  # kind -> what the server says that it is now
ASKED: list[str] = []  # tags that clients asked for
REDIRECTS = {
    "there": "https://localhost:{port}/good/a.safetensors",
    "plain": "http://localhost:{port}/good/a.safetensors",
    "file": "file:///etc/passwd",
    "private": "https://127.0.0.1:{port}/good/a.safetensors",
    "link-local": "https://169.254.169.254/latest/meta-data",
    "loop": "https://localhost:{port}/loop/a.safetensors",
}
# Kind -> words of the refusal.
WRONG = {
    "page": "is not an adapter: adapter.safetensors is not a safetensors file",
    "pickle": "is not an adapter",
    "nothing": "is not an adapter",
    "missing": "cannot be fetched: Not Found",
    "more": "",
    "less": "is damaged",
    "huge": "larger than 2 GiB",
    "hang": "cannot be fetched: The read operation timed out",
    "drip": "arrives too slowly",
    "slow-headers": "its headers did not come within",
    "only-continue": "its headers did not come within",
    "plain": "it redirects to http://localhost",
    "file": "cannot be fetched",
    "private": "it redirects to 127.0.0.1, which is in a private network",
    "link-local": "which is in a private network",
    "loop": "cannot be fetched",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("https")
    made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x", "-addext"]
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(["openssl", "req", *made, names, *files], check=True, capture_output=True)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"https://localhost:{httpd.server_port}", folder / "cert.pem"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def address(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("SSL_CERT_FILE", str(server[1]))
    monkeypatch.setenv("HUBLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urls, "_TIMEOUT", 0.5)
    monkeypatch.setattr(urls, "_GRACE", 0.3)
    return server[0]


def fetch(address: str, kind: str) -> Any:
    return download_adapter(AdapterRef.parse(f"{address}/{kind}/a.safetensors?secret=1"))


@pytest.mark.parametrize("kind", ["good", "there"])
def test_what_is_right_is_downloaded_once(address: str, kind: str) -> None:
    _, path = fetch(address, kind)
    assert path.read_bytes() == GOOD
    (BODIES["good"], before) = ((b"", 0), BODIES["good"])
    try:
        assert fetch(address, kind)[1] == path
    finally:
        BODIES["good"] = before


def test_only_changed_files_are_downloaded_again_and_each_is_stored_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save(
        {"unet.a.lora_A.weight": torch.ones(1, 4), "unet.a.lora_B.weight": torch.ones(4, 1)}
    )
    monkeypatch.setitem(BODIES, "tagged", (GOOD, len(GOOD)))
    monkeypatch.setitem(TAGS, "tagged", '"one"')
    _, first = fetch(address, "tagged")
    assert fetch(address, "good")[1] == first  # the same content lies there once
    assert fetch(address, "tagged")[1] == first
    assert ASKED == ['"one"']
    monkeypatch.setitem(BODIES, "tagged", (other, len(other)))
    monkeypatch.setitem(TAGS, "tagged", '"two"')
    _, second = fetch(address, "tagged")
    assert (first.read_bytes(), second.read_bytes()) == (GOOD, other)
    monkeypatch.setitem(TAGS, "tagged", '"three"')
    monkeypatch.setitem(BODIES, "tagged", (b"<html>", 6))
    with pytest.raises(AdapterError):  # the new content is not an adapter
        fetch(address, "tagged")
    monkeypatch.setitem(BODIES, "tagged", (GOOD[:10], len(GOOD)))
    assert fetch(address, "tagged")[1] == second  # the server is away


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_a_sentence_and_leaves_nothing(address: str, kind: str) -> None:
    with pytest.raises((HubError, AdapterError)) as caught:
        fetch(address, kind)
    said = str(caught.value)
    assert WRONG[kind] in said
    assert "secret" not in said
    assert "\n" not in said
    folder = cache_root() / "urls"
    assert not folder.exists() or not list(folder.iterdir())


def test_an_unknown_certificate_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(HubError, match="certificate"):
        fetch(address, "good")


def test_a_name_is_resolved_once_and_connected_to_by_number(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server may answer with another address the second time."""
    public, private = "93.184.215.14", "127.0.0.1"
    asked: list[str] = []
    reached: list[str] = []
    resolve = socket.getaddrinfo

    def rebinding(host: str, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "rebind.example":
            return resolve(host, port, *rest, **more)
        asked.append(host)
        return resolve(public if len(asked) == 1 else private, port, *rest, **more)

    def connect(target: tuple[str, int], *rest: Any, **more: Any) -> socket.socket:
        reached.append(target[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    with urls.public_addresses_only(), pytest.raises(HubError, match="refused"):
        fetch("https://rebind.example", "good")
    assert (asked, reached) == (["rebind.example"], [public])
    with urls.public_addresses_only(), pytest.raises(HubError, match="in a private network"):
        fetch("https://rebind.example", "good")
    assert reached == [public]


def test_plain_http_is_not_fetched() -> None:
    with pytest.raises(HubloraError, match="not an https URL"):
        AdapterRef.parse("http://localhost/a.safetensors")
