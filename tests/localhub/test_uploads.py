"""Who sends is asked before anything is taken in, and what is taken in is what it says."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from hublora.localhub import bodies, create_token
from hublora.localhub.app import Hub, Settings
from hublora.localhub.store import Store
from tests.localhub.damage import flip_first_byte
from tests.localhub.test_commits import read


def test_nobodys_body_is_waited_for(hub, repo):
    """A large body is announced and never sent: the answer comes all the same."""
    where = urlsplit(hub.url)
    for path, token, status in (
        (f"/api/models/{repo}/commit/main", None, b"401"),
        (f"/api/models/{repo}/commit/main", create_token(hub.data_dir, "eve"), b"403"),
        (f"/api/models/{repo}/commit/nowhere", hub.token, b"404"),
        ("/api/models/me/nothing/commit/main", hub.token, b"404"),
        ("/me/nothing.git/git-upload-pack", None, b"401"),
    ):
        before = set((hub.data_dir / "uploads").iterdir())
        with socket.create_connection((where.hostname, where.port), timeout=30) as wire:
            who = f"authorization: Bearer {token}\r\n" if token else ""
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{who}content-length: {1 << 30}\r\n"
            wire.sendall(f"{head}\r\n".encode())
            assert wire.recv(4096).split()[1] == status
        assert set((hub.data_dir / "uploads").iterdir()) == before


def test_a_refused_commit_of_some_size_is_answered_and_not_cut_off(hub, eve, repo):
    operation = CommitOperationAdd("a.txt", b"x" * (6 << 20))
    with pytest.raises(HfHubHTTPError) as refusal:
        eve.create_commit(repo, [operation], commit_message="not hers")
    assert refusal.value.response.status_code == 403


def test_all_commits_on_their_way_together_have_a_limit(tmp_path: Path):
    store = Store(tmp_path)
    token = store.first_user("me")
    store.create_repo("model", "me", "x")
    settings = Settings(port=8000, max_spooled_bytes=3000)
    path, headers = "/api/models/me/x/commit/main", {"authorization": f"Bearer {token}"}
    lines = [
        {"key": "header", "value": {"summary": "a"}},
        {"key": "file", "value": {"path": "a.txt", "content": "a" * 2000}},
    ]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()

    async def both() -> list[int]:
        transport = httpx.ASGITransport(Hub(store, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            second = asyncio.Event()

            async def slowly():
                yield body[:1500]
                await second.wait()
                yield body[1500:]

            first = asyncio.create_task(http.post(path, content=slowly(), headers=headers))
            while not bodies._spooled:
                await asyncio.sleep(0.01)
            status = (await http.post(path, content=body, headers=headers)).status_code
            second.set()
            ended = await first
            later = await http.post(path, content=body, headers=headers)
            return [status, ended.status_code, later.status_code]

    assert asyncio.run(both()) == [503, 200, 200]


def test_a_damaged_large_file_is_mended_by_uploading_it_again(hub, api, repo, tmp_path):
    content = os.urandom((2 << 20) + 7)  # in parts
    small = os.urandom(5000)
    files = {"a.bin": content, "b.bin": small}
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    api.create_commit(repo, operations, commit_message="first")
    store = Store(hub.data_dir)
    for entry in api.get_paths_info(repo, list(files)):
        path = store.large.path(entry.lfs.sha256)
        flip_first_byte(path)
    assert read(api, repo, "b.bin", tmp_path / "damaged") != small
    again = [CommitOperationAdd(path, data) for path, data in files.items()]
    api.create_commit(repo, again, commit_message="again")
    for path, data in files.items():
        assert read(api, repo, path, tmp_path / "mended") == data


def test_a_file_and_a_folder_of_one_name_are_refused_unless_one_goes(api, repo):
    def put(*paths: str, delete: tuple[str, ...] = (), first: bool = True) -> None:
        gone = [CommitOperationDelete(path) for path in delete]
        added = [CommitOperationAdd(path, b"x") for path in paths]
        operations = [*gone, *added] if first else [*added, *gone]
        api.create_commit(repo, operations, commit_message="put")

    put("a", "f/x", "f/y")
    before = api.model_info(repo).sha
    for wrong, named in (
        (("a/b",), "'a' is a file"),
        (("a/b/c",), "'a' is a file"),
        (("f",), "'f' is a folder"),
        (("z/1", "z"), "'z' is a folder"),
        (("z", "z/1"), "'z' is a file"),
    ):
        with pytest.raises(BadRequestError, match=named):
            put(*wrong)
    assert api.model_info(repo).sha == before
    put("a/b", delete=("a",), first=False)
    put("f", delete=("f/",), first=True)
    put("a", delete=("a/",), first=False)
    put("f/x", delete=("f",))
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "a", "f/x"]
