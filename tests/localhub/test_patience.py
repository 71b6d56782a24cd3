"""Who sends slowly, reads slowly, or comes in crowds is cut off; everybody else is answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from huggingface_hub import HfApi

from hublora.http_server import listen
from hublora.localhub import LocalHub
from hublora.localhub.app import Hub, Settings
from hublora.localhub.store import Store

LARGE = os.urandom(1 << 20) * 24


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A Hub that waits half a second for headers, 1.5 for bodies and readers, with a large file."""
    data = tmp_path_factory.mktemp("quick")
    with LocalHub.start(data, patience=0.5, log_file=data / "log") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("big")
        api.upload_file(path_or_fileobj=LARGE, path_in_repo="w.bin", repo_id="me/big")
        yield hub


def connect(hub: LocalHub) -> socket.socket:
    """Return a connection that takes little at a time."""
    where = urlsplit(hub.url)
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    wire.settimeout(20)
    wire.connect((where.hostname, where.port))
    return wire


def head(hub: LocalHub, method: str, path: str, *headers: str) -> bytes:
    """Return the beginning of a request by the owner."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {urlsplit(hub.url).netloc}"]
    lines += [f"authorization: Bearer {hub.token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def drip(wire: socket.socket, piece: bytes, gap: float) -> bytes:
    """Send a piece again and again until the other end has had enough; return what it said."""
    said = b""
    wire.settimeout(gap)
    for _ in range(100):
        try:
            wire.sendall(piece)
            while got := wire.recv(65_536):
                said += got
            return said
        except TimeoutError:
            continue
        except ConnectionError:
            return said
    raise AssertionError("it never ends")


def rest(wire: socket.socket) -> int:
    """Return how many bytes still come before the connection ends."""
    count = 0
    try:
        while got := wire.recv(1 << 20):
            count += len(got)
    except ConnectionError:
        pass
    return count


def test_headers_that_trickle_are_cut_off_on_a_new_and_on_a_kept_connection(quick):
    with connect(quick) as wire:
        drip(wire, b"x", 0.05)
    with connect(quick) as wire:
        wire.sendall(head(quick, "GET", "/health"))
        assert wire.recv(65_536).startswith(b"HTTP/1.1 200")
        drip(wire, b"x", 0.05)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/repos/create", ["content-length: 1000"]),
        ("/api/repos/create", ["content-length: 1000", "expect: 100-continue"]),
        ("/api/repos/create", ["transfer-encoding: chunked"]),
        ("/api/models/me/big/commit/main", ["content-length: 1000000"]),
    ],
)
def test_a_body_that_trickles_is_cut_off(quick, path, headers):
    with connect(quick) as wire:
        wire.sendall(head(quick, "POST", path, *headers))
        piece = b"1\r\n \r\n" if "chunked" in headers[0] else b" "
        assert b" 408 " in drip(wire, piece, 0.1)


def test_an_upload_that_trickles_is_cut_off(quick):
    oid = hashlib.sha256(b"x").hexdigest()
    wanted = {"operation": "upload", "objects": [{"oid": oid, "size": 100_000}]}
    told = httpx.post(
        f"{quick.url}/me/big.git/info/lfs/objects/batch",
        json=wanted,
        headers={"authorization": f"Bearer {quick.token}"},
    ).json()
    href = told["objects"][0]["actions"]["upload"]["href"].removeprefix(quick.url)
    with connect(quick) as wire:
        wire.sendall(head(quick, "PUT", href, "content-length: 100000"))
        assert b" 408 " in drip(wire, b"x", 0.1)


def test_a_reader_who_stops_is_cut_off_and_a_steady_one_gets_all(quick):
    path = "/me/big/resolve/main/w.bin"
    with connect(quick) as stalled:
        stalled.sendall(head(quick, "GET", path))
        stalled.recv(1000)
        assert httpx.get(quick.url + path).content == LARGE
        time.sleep(4)
        assert rest(stalled) < len(LARGE) - 1_000_000


def test_a_reader_who_asked_to_close_and_stops_is_cut_off(quick):
    with connect(quick) as stalled:
        stalled.sendall(head(quick, "GET", "/me/big/resolve/main/w.bin", "connection: close"))
        stalled.recv(1000)
        time.sleep(4)
        assert rest(stalled) < len(LARGE) - 1_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells memory")
def test_stalled_readers_hold_little_memory(tmp_path):
    def resident() -> int:
        status = Path(f"/proc/{hub.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) >> 10

    with LocalHub.start(tmp_path) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("big")
        api.upload_file(path_or_fileobj=LARGE, path_in_repo="w.bin", repo_id="me/big")
        before = resident()
        readers = [connect(hub) for _ in range(150)]
        for wire in readers:
            wire.sendall(head(hub, "GET", "/me/big/resolve/main/w.bin"))
        for wire in readers:
            wire.recv(1000)
        assert httpx.get(f"{hub.url}/health").is_success
        assert resident() - before < 150  # MiB, less than one for each; it was more than two
        for wire in readers:
            wire.close()


def start_with_few_files(data: Path, most: int) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server that may open few files; return it with its address."""
    server = [sys.executable, "-m", "hublora.localhub", "--data", str(data)]
    process = subprocess.Popen(
        ["bash", "-c", f'ulimit -n {most}; exec "$0" "$@"', *server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


def test_more_connections_than_files_keep_nobody_out(tmp_path):
    process, url = start_with_few_files(tmp_path, 256)
    where = urlsplit(url)
    crowd = []
    try:
        for _ in range(600):
            wire = socket.create_connection((where.hostname, where.port), timeout=20)
            wire.sendall(b"GET /health HTTP/1.1\r\n")
            crowd.append(wire)
        for _ in range(5):
            assert httpx.get(f"{url}/api/models", timeout=10).json() == []
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < 250
    finally:
        for wire in crowd:
            wire.close()
        process.communicate(timeout=30)


def test_small_answers_are_sent_at_once():
    """Nagle's algorithm would hold them back until the client acknowledges, 40 ms later."""

    async def accepted() -> int:
        loop, listener = asyncio.get_running_loop(), listen("127.0.0.1", 0)
        found: asyncio.Future[int] = loop.create_future()

        class Looks(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                wire = transport.get_extra_info("socket")
                found.set_result(wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        server = await loop.create_server(Looks, sock=listener)
        with socket.create_connection(listener.getsockname()):
            answer = await asyncio.wait_for(found, 10)
        server.close()
        return answer

    assert asyncio.run(accepted()) != 0


def test_all_small_bodies_together_have_a_limit(tmp_path):
    store = Store(tmp_path)
    store.people.add("me")
    headers = {"authorization": f"Bearer {store.people.create_token('me')}"}
    hub = Hub(store, Settings(max_bodies_bytes=3000))
    body = b'{"name": "' + b"a" * 2000 + b'"}'

    async def crowd() -> list[int]:
        transport = httpx.ASGITransport(hub)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            go_on = asyncio.Event()

            async def slowly():
                yield body[:1800]
                await go_on.wait()
                yield body[1800:]

            path = "/api/repos/create"
            first = asyncio.create_task(http.post(path, content=slowly(), headers=headers))
            await asyncio.sleep(0.2)
            second = await http.post(path, content=body, headers=headers)
            go_on.set()
            ended = await first
            third = await http.post(path, content=body, headers=headers)
            return [second.status_code, ended.status_code, third.status_code]

    assert asyncio.run(crowd()) == [503, 400, 400]


def test_a_stranger_sends_less_than_somebody(quick):
    large = {"content": "a" * (5 << 20)}
    answer = httpx.post(f"{quick.url}/api/validate-yaml", json=large)
    assert answer.status_code == 413
    headers = {"authorization": f"Bearer {quick.token}"}
    answer = httpx.post(f"{quick.url}/api/validate-yaml", json=large, headers=headers)
    assert answer.status_code == 400  # read, and no card of that length is taken


def test_a_diff_that_difflib_would_take_hours_for_is_shown(quick):
    api = HfApi(endpoint=quick.url, token=quick.token)
    api.create_repo("diff", exist_ok=True)
    for turn in (1, 2):
        text = "".join(f"{(i * turn * 7919) % 120}\n" for i in range(30_000))
        api.upload_file(path_or_fileobj=text.encode(), path_in_repo="a.txt", repo_id="me/diff")
    answer = httpx.get(f"{quick.url}/me/diff/commit/main", timeout=60)
    assert answer.status_code == 200
    assert "@@" in answer.text
