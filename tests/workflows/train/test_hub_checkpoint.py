"""Checkpoints on a side branch: taken up elsewhere, never in the way, gone in the end."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hublora
from hublora.errors import ConfigError, Interrupted, NotFoundError
from hublora.progress import FileWritten, Note
from hublora.workflows.train.hub_checkpoint import BRANCH
from tests.entry import Done
from tests.proxy import Proxy

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS = "pytorch_lora_weights.safetensors"
KEPT = {
    WEIGHTS,
    "optimizer.safetensors",
    "state.json",
    "settings.json",
    "environment.json",
    "history.jsonl",
}
# Two things are learned in two parts, so that a checkpoint holds all that one may hold.
PIVOTAL = {"method": "pivotal", "tokens__placeholders": ["<x>"], "tokens__first_steps": 3}
TOKENS = "embeddings/tokens.safetensors"


@pytest.fixture(scope="module")
def api(hub: object) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


@pytest.fixture
def through(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy through which this process's clients reach the Hub."""
    from huggingface_hub import constants

    with Proxy(os.environ["HF_ENDPOINT"]) as proxy:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, proxy.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", proxy.url)
        yield proxy


def settings(folder: Path, repo_id: str, **changes: Any) -> dict[str, Any]:
    given = {
        "base.model": "bases/epsilon",
        "data.dataset": "bases/images",
        "schedule.max_train_steps": 6,
        "optimizer.learning_rate": 1e-2,
        "validation.prompts": ["Totoro"],
        "validation.num_images": 1,
        "checkpoint.steps": 2,
        "checkpoint.to_hub": True,
        "hub.push": True,
        "hub.model_id": repo_id,
        "output_dir": folder,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return {key: value for key, value in given.items() if value is not None}


def train(folder: Path, repo_id: str, callback: Any = None, **changes: Any) -> None:
    config = hublora.TrainingConfig.from_settings(settings(folder, repo_id, **changes))
    hublora.train(config, callback=callback or (lambda event: None))


def on_this_disk(bases: Path) -> dict[str, Any]:
    """Settings with which only checkpoints go to the Hub."""
    model, folder = str(bases / "epsilon"), bases / "images"
    return {"base__model": model, "data__dataset": None, "data__folder": folder, "hub__push": False}


def stop_at(step: int) -> Callable[[object], None]:
    """Press Ctrl-C when the checkpoint of a step was written."""

    def watch(event: object) -> None:
        if isinstance(event, FileWritten) and event.path.name == f"checkpoint-{step}":
            os.kill(os.getpid(), signal.SIGINT)

    return watch


def files_of(api: HfApi, repo_id: str, revision: str) -> set[str]:
    return set(api.list_repo_files(repo_id, revision=revision)) - {".gitattributes"}


def test_a_stopped_training_goes_on_elsewhere_and_ends_in_the_same_bytes(
    api: HfApi, hublora_cli: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id = "me/kept"
    train(
        tmp_path / "whole" / "kept", repo_id, checkpoint__to_hub=False, hub__push=False, **PIVOTAL
    )
    with pytest.raises(Interrupted):
        train(tmp_path / "first" / "kept", repo_id, stop_at(4), **PIVOTAL)
    assert files_of(api, repo_id, BRANCH) == {*KEPT, TOKENS}
    assert files_of(api, repo_id, "main") == set(), "never on main"
    assert len(api.list_repo_commits(repo_id, revision=BRANCH)) == 1, "squashed"
    large = [one.size for one in api.list_lfs_files(repo_id)]
    assert len(large) == 3, "of one checkpoint"
    state = Path(api.hf_hub_download(repo_id, "state.json", revision=BRANCH)).read_text()
    assert str(tmp_path) not in state, "nothing of this machine"

    pipe = hublora.load(f"{repo_id}@{BRANCH}")
    assert pipe.hublora.base.name == "bases/epsilon", "the checkpoint generates images"

    with pytest.raises(ConfigError, match=f"--resume {repo_id}"):
        train(tmp_path / "anew", repo_id)

    monkeypatch.setenv("HUBLORA_CACHE", str(tmp_path / "another cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    planned = hublora_cli("train", "--resume", repo_id, "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert json.loads(planned.out)["steps"] == 2
    assert json.loads(planned.out)["checkpoints_at"] == f"{repo_id}@{BRANCH} (public)"
    assert f"Checkpoints will be uploaded to {repo_id}" in planned.err
    assert not Path("runs").exists()
    done = hublora_cli("train", "--resume", repo_id, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["repo_id"] == repo_id
    whole, run = tmp_path / "whole" / "kept", Path(found["folder"])
    assert run == Path("runs/kept")
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    (learned,) = (whole / "embeddings").iterdir()
    assert (run / "embeddings" / learned.name).read_bytes() == learned.read_bytes()
    history = Path("training", "history.jsonl")
    assert (run / history).read_bytes() == (whole / history).read_bytes()
    assert [branch.name for branch in api.list_repo_refs(repo_id).branches] == ["main"]
    assert WEIGHTS in files_of(api, repo_id, "main")
    config = hublora.TrainingConfig.from_settings(settings(tmp_path / "x", repo_id))
    with pytest.raises(NotFoundError, match="has no checkpoint"):
        hublora.train(config, resume=repo_id)


def test_a_hub_that_goes_away_stops_nothing(through: Proxy, bases: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    def watch(event: object) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
        if isinstance(event, FileWritten) and event.path.name == "checkpoint-2":
            through.dies_at = lambda request: True

    train(tmp_path / "lost", "me/kept-lost", watch, **on_this_disk(bases))
    assert (tmp_path / "lost" / WEIGHTS).is_file()
    assert (tmp_path / "lost" / "checkpoint-6").is_dir()
    lost = [text for text in notes if "on this disk only" in text]
    assert len(lost) == 1, "said once, not at every checkpoint"
    for thread in threading.enumerate():
        if thread.name == "hublora-uploader":
            thread.join(10)
            assert not thread.is_alive(), "it ends with the training"
    assert not list((tmp_path / "lost").glob(".uploading-*"))


def test_an_upload_that_is_slow_holds_up_no_step(
    through: Proxy, bases: Path, tmp_path: Path
) -> None:
    """Checkpoints that are offered meanwhile wait, and only the newest of them is uploaded."""
    go = threading.Event()

    def answer(path: str, body: bytes) -> bytes:
        if "/commit/" in path:
            assert go.wait(60)
        return body

    uploads = []

    def watch(event: object) -> None:
        if isinstance(event, FileWritten) and event.path.name == "checkpoint-6":
            go.set()
        if isinstance(event, Note) and event.text.startswith("Uploaded"):
            uploads.append(event.text)

    through.change = answer
    train(tmp_path / "slow", "me/kept-slowly", watch, **on_this_disk(bases))
    assert [text.split(" to ")[0] for text in uploads] == [
        "Uploaded the checkpoint of step 2",
        "Uploaded the checkpoint of step 6",
    ]
