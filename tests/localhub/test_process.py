"""Starting, stopping, and the folder behind it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi

from hublora.errors import HubloraError
from hublora.localhub import LocalHub, import_folder


def test_a_restart_keeps_everything_and_the_same_token(tmp_path):
    with LocalHub.start(tmp_path, user="ada") as first:
        HfApi(endpoint=first.url, token=first.token).create_repo("ada/lora")
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{first.url}/health", timeout=2)
    with LocalHub.start(tmp_path, user="someone") as second:
        assert second.token == first.token
        api = HfApi(endpoint=second.url, token=second.token)
        assert [m.id for m in api.list_models()] == ["ada/lora"]
    assert stat.S_IMODE(os.stat(tmp_path / "owner-token").st_mode) == 0o600
    assert second.token not in (tmp_path / "hub.sqlite").read_bytes().decode("latin-1")


def test_a_request_under_way_is_finished_before_it_stops(tmp_path):
    content = os.urandom(30 << 20)
    with LocalHub.start(tmp_path) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("lora")
        api.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id="me/lora")
        with httpx.stream("GET", f"{hub.url}/me/lora/resolve/main/w.bin") as answer:
            pieces = answer.iter_raw(1 << 20)
            received = [next(pieces)]
            os.kill(hub.pid, signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):  # nobody new is let in
                httpx.get(f"{hub.url}/health")
            received += pieces
        assert b"".join(received) == content


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells peak memory")
def test_memory_stays_the_same_however_large_the_file(tmp_path):
    def peak() -> int:
        status = Path(f"/proc/{hub.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) >> 10

    (tmp_path / "big.bin").write_bytes(os.urandom(1 << 20) * 100)
    with LocalHub.start(tmp_path / "data") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("lora")
        before = peak()
        api.upload_file(
            path_or_fileobj=tmp_path / "big.bin", path_in_repo="big.bin", repo_id="me/lora"
        )
        received = 0
        with httpx.stream("GET", f"{hub.url}/me/lora/resolve/main/big.bin") as answer:
            for piece in answer.iter_raw(1 << 20):
                received += len(piece)
        assert received == 100 << 20
        assert peak() - before < 64  # MiB, of a file of 100 that came in parts of 64
        assert peak() < 200


def test_it_dies_with_the_process_that_started_it(tmp_path):
    script = f"""
import os
from hublora.localhub import LocalHub
hub = LocalHub.start({str(tmp_path)!r})
print(hub.url, flush=True)
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    deadline = time.monotonic() + 60
    while answers(done.stdout.strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not answers(done.stdout.strip())


def answers(url: str) -> bool:
    """Tell whether a server is there."""
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def test_a_taken_port_and_a_remote_address_are_told_in_a_sentence(hub, tmp_path):
    port = int(hub.url.rpartition(":")[2])
    with pytest.raises(HubloraError, match="Cannot listen"):
        LocalHub.start(tmp_path, port=port)
    with pytest.raises(HubloraError, match="allow_remote"):
        LocalHub.start(tmp_path, host="0.0.0.0")


def test_read_only_refuses_changes_and_answers_reads(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    import_folder(tmp_path / "hub", "ada/base", folder)
    with LocalHub.start(tmp_path / "hub", read_only=True) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        assert api.get_paths_info("ada/base", ["config.json"])[0].size == 2
        with pytest.raises(Exception, match="read-only"):
            api.create_repo("ada/new")


def test_an_imported_folder_is_one_commit_and_the_same_again_is_none(hub, api, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet" / "w.safetensors").write_bytes(os.urandom(5000))
    commit = import_folder(hub.data_dir, "studio/base", tmp_path, message="Take in")
    assert api.model_info("studio/base").sha == commit
    assert api.model_info("studio/base").library_name == "diffusers"
    assert import_folder(hub.data_dir, "studio/base", tmp_path) == commit
    assert [c.title for c in api.list_repo_commits("studio/base")] == ["Take in", "initial commit"]


def test_importing_the_package_imports_neither_torch_nor_datasets():
    script = "import sys, hublora.localhub.serve; print({'torch', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
