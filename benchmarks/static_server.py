"""What the embedded Hub's downloads are compared with: nginx, else the standard library."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

_CONFIG = """daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fcgi; uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


@contextmanager
def static_server(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve a folder on loopback; yields the server's name and address."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    yield from _nginx(nginx, folder) if nginx else _standard_library(folder)


def _nginx(program: str, folder: Path) -> Iterator[tuple[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    user = "user root;" if folder.owner() == "root" else ""
    config.write_text(_CONFIG.format(folder=folder, port=port, user=user))
    process = subprocess.Popen([program, "-c", config, "-e", folder / "nginx.log"])
    try:
        _wait(port)
        yield "nginx", f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise RuntimeError("nginx does not answer")


class _Handler(http.server.SimpleHTTPRequestHandler):
    def copyfile(self, source, output) -> None:  # type: ignore[no-untyped-def]
        self.connection.sendfile(source)

    def log_message(self, *_: object) -> None:
        pass


def _standard_library(folder: Path) -> Iterator[tuple[str, str]]:
    handler = partial(_Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "http.server (sendfile)", f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
