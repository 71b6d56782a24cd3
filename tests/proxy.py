"""A reverse proxy before the Hub: it counts, corrupts and dies, as a Hub does on a bad day."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

Change = Callable[[str, bytes], bytes]
Failure = tuple[int, dict[str, str]] | tuple[int, dict[str, str], bytes] | Literal["reset", "stall"]
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


class Proxy:
    """Passes every request on to `target` and its answer back.

    Attributes:
        url: Its address.
        requests: "METHOD path" of each request, in order.
        sent: Bytes of answers' bodies.
        change: Gets path and body of each answer and returns the body to send.
        dies_at: Closes every connection from the first request on whose "METHOD path" this accepts.
        fails: Returns what happens to a request in place of the Hub's answer: a status with
            headers and perhaps a body, "reset", "stall", or None for the Hub's answer.
    """

    def __init__(
        self,
        target: str,
        change: Change = lambda path, body: body,
        dies_at: Callable[[str], bool] = lambda request: False,
        fails: Callable[[str], Failure | None] = lambda request: None,
    ) -> None:
        self.requests: list[str] = []
        self.sent = 0
        self.change = change
        self.dies_at = dies_at
        self.fails = fails
        self.dead = False
        self.stopped = Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, target))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: Proxy, target: str) -> type[BaseHTTPRequestHandler]:
    host = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            request = f"{self.command} {self.path}"
            proxy.requests.append(request)
            proxy.dead = proxy.dead or proxy.dies_at(request)
            if proxy.dead:
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            failure = proxy.fails(request)
            if failure == "stall":
                proxy.stopped.wait(60)
            if failure in ("stall", "reset"):
                self.close_connection = True
                return
            if isinstance(failure, tuple):
                status, named, *content = failure
                said = b"".join(content)
                self.send_response(status)
                for name, value in named.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said)
                return
            # The Host header stays the proxy's: links in answers lead back here.
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            headers["Accept-Encoding"] = "identity"
            upstream = http.client.HTTPConnection(host, timeout=60)
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            content = proxy.change(self.path, answer.read())
            if "json" in (
                answer.getheader("Content-Type") or ""
            ):  # links to upload to lead here too
                content = content.replace(target.encode(), proxy.url.encode())
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
                proxy.sent += len(content)
            upstream.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = pass_on

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def flip_a_byte(of: str) -> Change:
    """Return a change that flips one byte of every file downloaded whose path ends in `of`."""

    def change(path: str, body: bytes) -> bytes:
        if "/resolve/" not in path or not path.endswith(of) or len(body) < 10:
            return body
        return body[:-5] + bytes([body[-5] ^ 1]) + body[-4:]

    return change
