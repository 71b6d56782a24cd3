"""A checkpoint on the Hub that is not what was written is refused, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import hublora
from hublora.errors import ConfigError, Interrupted
from hublora.filesystem import locked
from hublora.progress import FileWritten
from hublora.workflows.train.destination import default_folder
from hublora.workflows.train.hub_checkpoint import (
    BRANCH,
    ENVIRONMENT,
    HISTORY,
    SETTINGS,
    STATE,
    download_checkpoint,
)

DEEP = b"[" * 200_000
TREE = {"base": {"model": "bases/epsilon"}, "data": {"dataset": "bases/images"}}
WHOLE = {
    "step": 2,
    "settings": {},
    "sha256": {"optimizer.safetensors": hashlib.sha256().hexdigest()},
}


def state(**changes: Any) -> bytes:
    """Return a state that is as it was written, by its own digest."""
    said = {key: value for key, value in {**WHOLE, **changes}.items() if value is not None}
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return json.dumps({**said, "state": digest}).encode()


def keep(name: str, **files: bytes | None) -> str:
    """Let a repo keep what a person wrote by hand; return its id."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api, repo = HfApi(), f"me/{name}"
    api.create_repo(repo, exist_ok=True)
    api.create_branch(repo, branch=BRANCH, exist_ok=True)
    whole = {
        SETTINGS: json.dumps(TREE).encode(),
        ENVIRONMENT: b"{}",
        HISTORY: b"",
        STATE: state(),
        "optimizer.safetensors": b"",
    }
    given = {key.replace("_", "."): value for key, value in files.items()}
    held = {key: value for key, value in (whole | given).items() if value is not None}
    api.create_commit(
        repo,
        [CommitOperationAdd(path, content) for path, content in held.items()],
        commit_message="kept",
        revision=BRANCH,
    )
    return repo


@pytest.mark.parametrize(
    "content", [DEEP, b"{", b"[]", b"\xff", b'{"a":' * 5000 + b"1" + b"}" * 5000]
)
def test_settings_that_cannot_be_read_are_a_sentence(
    hublora_cli: Any, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repo = keep("kept-by-hand-settings", settings_json=content)
    done = hublora_cli("train", "--resume", repo)
    assert done.status == 1
    assert f"Error: The checkpoint of {repo} is damaged: settings.json" in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        *(DEEP, b"[]", b"1", b"{}", b'{"step": 2}'),
        *(state(step="2"), state(step=-1), state(step=None), state(step=True), state(settings=[])),
        *(state(sha256=[]), state(sha256={}), state(sha256={"../../x": "0"})),
    ],
)
def test_a_state_that_is_none_is_a_sentence(content: bytes, tmp_path: Path, hub: object) -> None:
    repo = keep("kept-by-hand-state", state_json=content)
    with pytest.raises(ConfigError, match=r"state\.json is not what was written"):
        download_checkpoint(repo, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_or_changed_is_named(tmp_path: Path, hub: object) -> None:
    for name, files in {
        "optimizer.safetensors": {"optimizer_safetensors": b"other"},
        "history.jsonl": {"history_jsonl": None},
    }.items():
        with pytest.raises(ConfigError, match=f"{name} is not what was written"):
            download_checkpoint(keep(f"kept-by-hand-{name[:3]}", **files), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    downloaded = download_checkpoint(keep("kept-by-hand-whole"), tmp_path / "run")
    assert sorted(one.name for one in downloaded.iterdir()) == [
        "optimizer.safetensors",
        "state.json",
    ]


def test_other_settings_are_refused_and_leave_the_folder_free(
    hublora_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: object
) -> None:
    import signal

    def watch(event: object) -> None:
        if isinstance(event, FileWritten) and event.what == "checkpoint":
            signal.raise_signal(signal.SIGINT)

    repo = "me/kept-for-others"
    given = {
        "base.model": "bases/epsilon",
        "data.dataset": "bases/images",
        "schedule.max_train_steps": 2,
        "checkpoint.steps": 1,
        "checkpoint.to_hub": True,
        "hub.model_id": repo,
        "output_dir": tmp_path / "first",
        "validation.num_images": 1,
        "validation.num_inference_steps": 1,
    }
    with pytest.raises(Interrupted):
        hublora.train(hublora.TrainingConfig.from_settings(given), callback=watch)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for _ in range(2):  # the second try gives the same message
        done = hublora_cli("train", "--resume", repo, "--rank", "8")
        assert done.status == 1
        assert (
            f"The checkpoint {repo}@{BRANCH} was made with other settings: adapter.rank" in done.err
        )
        assert not list(Path().iterdir())
    done = hublora_cli("train", "--resume", repo, "-q")
    assert done.status == 0, done.err
    assert Path("runs/kept-for-others/pytorch_lora_weights.safetensors").is_file()
    assert not list(Path().glob(".checkpoint-*"))


def test_what_a_failed_start_left_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = Path("runs/it"), Path("runs/it-2")
    assert default_folder("it", None) == first
    history = first / "training" / "history.jsonl"
    history.parent.mkdir(parents=True)
    history.touch()
    assert default_folder("it", None) == first
    with locked(first):
        assert default_folder("it", None) == second
    assert default_folder("it", None) == first
    history.write_text('{"step": 1}\n')
    assert default_folder("it", None) == second
    assert default_folder("it", "latest") == first
