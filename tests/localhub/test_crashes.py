"""Nothing that was acknowledged is lost: kill -9 in the midst of uploads, and racing commits.

`HUBLORA_KILLS=50 pytest -s tests/localhub/test_crashes.py -k kill_9` makes the long run whose
figures are in docs/hub-crashes.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from hublora.localhub import LocalHub
from hublora.localhub.store import Store
from hublora.localhub.store.backup import back_up
from tests.localhub.test_housekeeping import check_whole

KILLS = int(os.environ.get("HUBLORA_KILLS", "3"))
WRITERS = 3


class Writer(threading.Thread):
    """Commits a small and a large file again and again, and remembers what was acknowledged.

    It speaks as huggingface_hub does, but gives up at once when the server is gone.
    """

    def __init__(self, hub: LocalHub, number: int, round_number: int) -> None:
        super().__init__()
        headers = {"authorization": f"Bearer {hub.token}"}
        self.http = httpx.Client(base_url=hub.url, headers=headers, timeout=20)
        self.number, self.round = number, round_number
        self.acknowledged: list[tuple[str, dict[str, bytes]]] = []

    def run(self) -> None:
        """Write until the server is gone."""
        try:
            for i in range(10_000):
                self.write(f"{self.round}-{self.number}-{i}")
        except httpx.HTTPError:
            self.http.close()

    def write(self, name: str) -> None:
        """Upload, commit, and note it when it was acknowledged."""
        small, big = name.encode(), os.urandom(20_000)
        oid = hashlib.sha256(big).hexdigest()
        wanted = {"operation": "upload", "objects": [{"oid": oid, "size": len(big)}]}
        (told,) = self.post("/me/crash.git/info/lfs/objects/batch", json=wanted)["objects"]
        self.http.put(told["actions"]["upload"]["href"], content=big).raise_for_status()
        lines = [
            {"key": "header", "value": {"summary": name}},
            {"key": "file", "value": {"path": f"small/{name}.txt", "content": name}},
            {"key": "lfsFile", "value": {"path": f"large/{name}.bin", "oid": oid}},
        ]
        body = "".join(json.dumps(line) + "\n" for line in lines)
        made = self.post("/api/models/me/crash/commit/main", content=body)
        files = {f"small/{name}.txt": small, f"large/{name}.bin": big}
        self.acknowledged.append((made["commitOid"], files))

    def post(self, path: str, **what: Any) -> dict[str, Any]:
        """Post, and return the answer."""
        answer = self.http.post(path, **what)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


@pytest.mark.timeout(900)
def test_every_acknowledged_commit_survives_kill_9(tmp_path: Path):
    data, seed = tmp_path / "data", random.Random(7)
    acknowledged: list[tuple[str, dict[str, bytes]]] = []
    store = Store(data)
    store.first_user("me")
    store.create_repo("model", "me", "crash")
    ended = threading.Event()
    pool = ThreadPoolExecutor(1)
    caretaker = pool.submit(look_after, data, tmp_path / "backup", ended)
    for number in range(KILLS):
        hub = LocalHub.start(data)
        writers = [Writer(hub, n, number) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        time.sleep(0.3 + seed.random() * 1.2)
        os.kill(hub.pid, 9)
        hub.stop()
        for writer in writers:
            writer.join()
            acknowledged += writer.acknowledged
    ended.set()
    assert caretaker.result() > 0
    assert len(acknowledged) >= KILLS
    print(f"\n{KILLS} kills, {WRITERS} writers, {len(acknowledged)} acknowledged commits")
    with LocalHub.start(data):
        check(data, acknowledged)
    check_whole(Store(tmp_path / "backup"))
    back_up(Store(data), tmp_path / "backup")
    Store(tmp_path / "backup").recover()
    check(tmp_path / "backup", acknowledged)


def look_after(data: Path, backup: Path, ended: threading.Event) -> int:
    """Run gc and backups over and over, beside a Hub that is used and killed; return how often."""
    count = 0
    while not ended.is_set():
        Store(data).collect_garbage()
        back_up(Store(data), backup)
        count += 1
    return count


def check(data: Path, acknowledged: list[tuple[str, dict[str, bytes]]]) -> None:
    """Every commit is in the history, whole, and git finds the repository sound."""
    store = Store(data)
    repo = store.repos.find("model", "me/crash")
    git = store.git(repo)
    head = git.resolve("main")
    assert {oid for oid, _ in acknowledged} <= {commit.id for commit in git.history(head)}
    assert repo.head == head
    for _, files in acknowledged:
        for path, content in files.items():
            entry = git.entry(head, path)
            found = (
                store.large.path(entry.lfs.oid).read_bytes() if entry.lfs else git.read(entry.oid)
            )
            assert found == content
    if shutil.which("git"):
        subprocess.run(["git", "-C", str(git.folder), "fsck", "--full"], check=True)
    assert not list((data / "uploads").glob("stage-*"))


def test_racing_commits_are_in_the_history_or_got_a_412(hub, api, repo):
    done: list[str] = []
    refused: list[int] = []

    def write(number: int) -> None:
        for i in range(4):
            parent = api.model_info(repo).sha
            operation = CommitOperationAdd(f"{number}-{i}.txt", b"x")
            try:
                made = api.create_commit(
                    repo, [operation], commit_message="race", parent_commit=parent
                )
                done.append(made.oid)
            except HfHubHTTPError as refusal:
                refused.append(refusal.response.status_code)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = [commit.commit_id for commit in api.list_repo_commits(repo)]
    assert len(done) + len(refused) == 24
    assert set(refused) <= {412}
    assert set(done) <= set(history)
    assert len(history) == len(done) + 1


def test_an_interrupted_upload_of_parts_goes_on_where_it_was(hub, api, repo, tmp_path):
    content = os.urandom((3 << 20) + 5)
    first = CommitOperationAdd("a.bin", content)
    api.preupload_lfs_files(repo, [first])
    # The same content again: every part is there, so nothing travels.
    again = CommitOperationAdd("b.bin", content)
    api.create_commit(repo, [again], commit_message="again")
    assert api.get_paths_info(repo, ["b.bin"])[0].lfs.size == len(content)
