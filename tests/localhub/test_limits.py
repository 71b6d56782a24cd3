"""A full disk and the limit of open files: refused in a sentence, and over when they are over."""

from __future__ import annotations

import json
import os
import resource
import sys

import httpx
import pytest
from huggingface_hub import HfApi

from hublora.localhub import LocalHub
from tests.localhub.attacks.world import put
from tests.localhub.test_attacks import traces

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")


def commit(hub: LocalHub, size: int) -> httpx.Response:
    """Commit a file of random letters."""
    lines = [
        {"key": "header", "value": {"summary": "fill"}},
        {"key": "file", "value": put("a.txt")["value"] | {"content": os.urandom(size).hex() * 2}},
    ]
    return httpx.post(
        f"{hub.url}/api/models/me/lora/commit/main",
        content="".join(json.dumps(line) + "\n" for line in lines),
        headers={"authorization": f"Bearer {hub.token}"},
        timeout=60,
    )


def test_a_full_disk_is_told_keeps_nothing_and_is_over_when_there_is_room(tmp_path):
    with LocalHub.start(tmp_path / "data", log_file=tmp_path / "log") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("lora")
        api.upload_file(path_or_fileobj=bytes(20_000), path_in_repo="v.bin", repo_id="me/lora")
        before, head = traces(tmp_path / "data"), api.model_info("me/lora").sha
        # What a full disk does to a write, done to this one process: no file beyond 100 kB.
        _, hard = resource.prlimit(hub.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (100_000, hard))
        for answer in (commit(hub, 300_000), commit(hub, 3_000_000)):
            assert answer.status_code == 507, answer.text
            assert "disk of this Hub is full" in answer.json()["error"]
        with pytest.raises(Exception, match="Error while uploading"):
            api.upload_file(
                path_or_fileobj=os.urandom(200_000), path_in_repo="w.bin", repo_id="me/lora"
            )
        assert httpx.get(f"{hub.url}/me/lora").status_code == 200
        assert api.model_info("me/lora").sha == head
        assert traces(tmp_path / "data") == before
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert commit(hub, 300_000).status_code == 200
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_no_more_open_files_is_told_and_over_when_some_are_closed(tmp_path):
    with LocalHub.start(tmp_path / "data", log_file=tmp_path / "log") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("lora")
        before = resource.prlimit(hub.pid, resource.RLIMIT_NOFILE)
        with httpx.Client(base_url=hub.url) as http:
            assert http.get("/api/models/me/lora/tree/main").status_code == 200
            open_now = len(os.listdir(f"/proc/{hub.pid}/fd"))
            resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, (open_now, before[1]))
            answer = http.get("/api/models/me/lora/tree/main")
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"] == "5"
            resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, before)
            assert http.get("/api/models/me/lora/tree/main").status_code == 200
    assert "Traceback" not in (tmp_path / "log").read_text()
