"""How fast is the embedded Hub, beside what the machine can do at all?

    python benchmarks/hub.py [--gib 1.0] [--clients 64] [--folder DIR]

Downloading is compared with the same client code against nginx, uploading with `sha256sum` plus a
copy on the same disk; pages of long lists are timed one by one.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import httpx
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.file_download import http_get
from static_server import static_server

from hublora.localhub import LocalHub
from hublora.localhub.store import Store
from hublora.localhub.store.disk import now

ROUNDS = 3


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--folder", default=None)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        with LocalHub.start(folder / "hub") as hub:
            api = HfApi(endpoint=hub.url, token=hub.token)
            api.create_repo("bench")
            print("| what | measured | beside | ratio |\n|---|---|---|---|")
            large_files(hub, api, folder, int(args.gib * 2**30))
            peak = peak_mib(hub.pid)
            print(f"| server's peak memory so far | {peak:.0f} MiB | 200 MiB | |")
            pages(hub, api, folder / "hub")
            many_clients(hub, args.clients)
            print(f"| server's peak memory over all this | {peak_mib(hub.pid):.0f} MiB | | |")
        memory(folder, int(2 * args.gib * 2**30))
    finally:
        shutil.rmtree(folder)


def large_files(hub: LocalHub, api: HfApi, folder: Path, size: int) -> None:
    """Upload and download one large file, each in turn with its neighbour; the medians count."""
    source = folder / "big.bin"
    beside: list[float] = []
    mine: list[float] = []
    before = cpu_seconds(hub.pid)
    for round_number in range(ROUNDS):
        fill(source, size)
        subprocess.run(["sha256sum", source], check=True, capture_output=True)  # into the cache
        beside.append(timed(lambda: hash_and_copy(source, folder / "copy")))
        mine.append(timed(partial(upload, api, source, f"{round_number}.bin")))
    row("upload through the client", size, mine, "sha256sum + cp + sync", beside)
    print(f"| the server's CPU for it | {(cpu_seconds(hub.pid) - before) / ROUNDS:.1f} s | | |")
    address = f"{hub.url}/me/bench/resolve/main/{ROUNDS - 1}.bin"
    beside, mine = [], []
    before = cpu_seconds(hub.pid)
    with static_server(folder) as (name, url):
        for _ in range(ROUNDS):
            beside.append(timed(lambda: fetch(f"{url}/big.bin", folder)))
            mine.append(timed(lambda: fetch(address, folder)))
    row("download by the client's code", size, mine, name, beside)
    print(f"| the server's CPU for it | {(cpu_seconds(hub.pid) - before) / ROUNDS:.1f} s | | |")


def memory(folder: Path, size: int) -> None:
    """Print how much memory a fresh server ever takes to receive and send one large file."""
    source = folder / "big.bin"
    fill(source, size)
    with LocalHub.start(folder / "fresh") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("bench")
        upload(api, source, "big.bin")
        fetch(f"{hub.url}/me/bench/resolve/main/big.bin", folder)
        assert filecmp.cmp(source, folder / "fetched", shallow=False)
        peak = f"{peak_mib(hub.pid):.0f} MiB"
    print(f"| server's peak memory, {size / 2**30:g} GiB up and down | {peak} | 200 MiB | |")
    shutil.rmtree(folder / "fresh")


def fill(path: Path, size: int) -> None:
    """Write a file of random bytes."""
    with path.open("wb") as file:
        for _ in range(0, size, 1 << 24):
            file.write(os.urandom(1 << 24))


def upload(api: HfApi, source: Path, path: str) -> None:
    """Commit one large file."""
    add = CommitOperationAdd(path, source)
    api.create_commit("me/bench", [add], commit_message="big")


def hash_and_copy(source: Path, target: Path) -> None:
    """Do what an upload cannot avoid: hash, copy, and wait for the disk."""
    subprocess.run(["sha256sum", source], check=True, capture_output=True)
    subprocess.run(["cp", source, target], check=True)
    subprocess.run(["sync", target], check=True)


def fetch(url: str, folder: Path) -> None:
    """Download a file as huggingface_hub does."""
    with (folder / "fetched").open("wb") as file:
        http_get(url, file)


def pages(hub: LocalHub, api: HfApi, data: Path) -> None:
    """Time the pages of a tree of 10,000 files and of a list of 10,000 repos."""
    many = [CommitOperationAdd(f"d{i % 100}/{i}.txt", f"{i}".encode()) for i in range(10_000)]
    took = timed(lambda: api.create_commit("me/bench", many, commit_message="many"))
    print(f"| a commit of 10,000 files | {took:.1f} s | | |")
    fill_register(Store(data), 10_000)
    first = f"{hub.url}/api/models/me/bench/tree/main"
    page_row(hub, "a tree of 10,000 files, recursive", f"{first}?recursive=true")
    page_row(hub, "the same with last commits", f"{first}?recursive=true&expand=true&limit=100", 10)
    page_row(hub, "a list of 10,000 repos", f"{hub.url}/api/models?limit=1000")
    page_row(
        hub, "the same by tag and search", f"{hub.url}/api/models?filter=lora&search=7&limit=100", 5
    )
    page_row(hub, "the page in a browser", f"{hub.url}/models", 5)


def fill_register(store: Store, count: int) -> None:
    """Put rows of repos into the register: lists ask nothing else."""
    moment = now()
    with store.database.write() as connection:
        connection.executemany(
            "INSERT INTO repos (id, kind, name, owner, created_at, modified_at, head, stale)"
            " VALUES (?, 'model', ?, 'me', ?, ?, 'x', 0)",
            [(f"bench{i}", f"me/listed-{i}", moment, moment) for i in range(count)],
        )
        connection.executemany(
            "INSERT INTO repo_tags VALUES (?, ?, ?)",
            [(f"bench{i}", tag, p) for i in range(count) for p, tag in enumerate(("lora", "x"))],
        )


def page_row(hub: LocalHub, what: str, url: str | None, most: int = 20) -> None:
    """Follow `next` links and print how long the pages took."""
    took = []
    with httpx.Client(timeout=60) as client:
        client.get(str(url))
        before = cpu_seconds(hub.pid)
        while url and len(took) < most:
            start = time.perf_counter()
            answer = client.get(url)
            answer.raise_for_status()
            took.append((time.perf_counter() - start) * 1000)
            url = answer.links.get("next", {}).get("url")
    cpu = (cpu_seconds(hub.pid) - before) / len(took) * 1000
    middle, worst = statistics.median(took), max(took)
    said = f"{middle:.0f} ms (worst {worst:.0f}; {cpu:.0f} ms of CPU)"
    print(f"| {what}, a page | {said} | 100 ms | |")


def many_clients(hub: LocalHub, count: int) -> None:
    """Let many clients read and write at once; no call may fail."""
    failures: list[Exception] = []

    def work(number: int) -> None:
        api = HfApi(endpoint=hub.url, token=hub.token)
        try:
            name = f"me/client-{number}"
            api.create_repo(name)
            operation = CommitOperationAdd("a.bin", os.urandom(50_000))
            api.create_commit(name, [operation], commit_message="a")
            url = f"{hub.url}/{name}/resolve/main/a.bin"
            assert len(httpx.get(url, timeout=60).content) == 50_000
            api.model_info("me/bench")
            next(iter(api.list_models(limit=10)))
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    print(
        f"| {count} clients at once: create, commit, read, list | {took:.1f} s,"
        f" {len(failures)} failures | 0 failures | |"
    )
    if failures:
        raise failures[0]


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(what: str, size: int, mine: list[float], name: str, beside: list[float]) -> None:
    """Print one comparison of rates, by the medians."""
    rates = [size / 2**20 / statistics.median(took) for took in (mine, beside)]
    ratio = rates[0] / rates[1]
    print(f"| {what} | {rates[0]:.0f} MiB/s | {name}: {rates[1]:.0f} MiB/s | {ratio:.2f} |")


def cpu_seconds(pid: int) -> float:
    """Return how much processor time a process has used: load from others does not count."""
    facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
