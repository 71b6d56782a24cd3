"""Pushing: checked before, one commit of the right files, read back after; nothing lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import hublora
from hublora.errors import AccessError, HubError, PushError, RefError, VerificationError
from hublora.hub.push import check_can_push
from hublora.localhub import create_token
from tests.proxy import Proxy, flip_a_byte

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LAYOUT = {
    "README.md",
    "pytorch_lora_weights.safetensors",
    "comfyui/a.safetensors",
    "images/0.png",
    "images/1.png",
}


def files_of(api: HfApi, repo_id: str) -> set[str]:
    return set(api.list_repo_files(repo_id)) - {".gitattributes"}


def test_a_push_is_one_commit_of_the_layouts_files(
    run_folder: Path, repo_id: str, api: HfApi, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (run_folder / "images" / "link.png").symlink_to(secret)
    (run_folder / "images" / ".hidden.png").write_bytes(b"x")
    (run_folder / "training").mkdir()
    for stray in ("notes.txt", "optimizer.pt", "training/log.txt", "extra.safetensors", ".env"):
        (run_folder / stray).write_bytes(b"x")
    pushed = hublora.push(run_folder, repo_id)
    assert files_of(api, repo_id) == LAYOUT
    assert set(pushed.files) == LAYOUT
    history = [commit.commit_id for commit in api.list_repo_commits(repo_id)]
    assert history[0] == pushed.commit
    made_with_the_repo = 1
    assert len(history) == 1 + made_with_the_repo
    hublora.push(run_folder, repo_id)
    assert len(api.list_repo_commits(repo_id)) == len(history), "nothing changed: no commit"


def test_what_was_pushed_runs_by_its_id(run_folder: Path, repo_id: str) -> None:
    pushed = hublora.push(run_folder, repo_id)
    pipe = hublora.load(f"{repo_id}:0.5")
    (part,) = pipe.hublora.adapters
    facts, weight = part.adapter.facts, part.weight.number
    assert facts.source == f"{repo_id}@{pushed.commit}/pytorch_lora_weights.safetensors"
    assert weight == 0.5
    assert pipe.hublora.base.name == "bases/epsilon"


def test_pushing_again_keeps_a_persons_words_and_removes_stale_images(
    run_folder: Path, repo_id: str, api: HfApi
) -> None:
    hublora.push(run_folder, repo_id)
    card = (run_folder / "README.md").read_text().replace("Say what it is for.", "For my cat.")
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repo_id)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="my-notes.txt", repo_id=repo_id)
    before = len(api.list_repo_commits(repo_id))
    (run_folder / "images" / "1.png").unlink()
    hublora.push(run_folder, repo_id)
    assert files_of(api, repo_id) == LAYOUT - {"images/1.png"} | {"my-notes.txt"}
    assert "For my cat." in Path(api.hf_hub_download(repo_id, "README.md")).read_text()
    assert len(api.list_repo_commits(repo_id)) == before + 1


def test_a_private_push_makes_a_private_repo(run_folder: Path, repo_id: str, api: HfApi) -> None:
    hublora.push(run_folder, repo_id, private=True)
    assert api.repo_info(repo_id).private


@pytest.mark.parametrize("broken", ["pytorch_lora_weights.safetensors", "images/1.png"])
def test_a_hub_that_corrupts_one_byte_is_caught(
    run_folder: Path, repo_id: str, through: Callable[..., Proxy], broken: str
) -> None:
    proxy = through(change=flip_a_byte(broken))
    with pytest.raises(VerificationError) as caught:
        hublora.push(run_folder, repo_id)
    assert f"GET /{repo_id}/resolve/" in "".join(proxy.requests)
    said = str(caught.value)
    assert f"{broken} (differs)" in said
    assert said.endswith(f"hublora push {run_folder} {repo_id}")


def test_a_hub_that_cuts_a_file_short_is_caught(
    run_folder: Path, repo_id: str, through: Callable[..., Proxy]
) -> None:
    def cut(path: str, body: bytes) -> bytes:
        return body[:-1] if "/resolve/" in path and path.endswith("1.png") else body

    through(change=cut)
    with pytest.raises(HubError, match=r"was pushed, but could not be .* incomplete: .*\b1\.png"):
        hublora.push(run_folder, repo_id)


def test_a_push_moves_its_weights_once_each_way(
    run_folder: Path, repo_id: str, through: Callable[..., Proxy]
) -> None:
    """One upload and one download, in which the loading of the adapter is."""
    proxy = through()
    hublora.push(run_folder, repo_id)
    for name in LAYOUT:
        loads = [one for one in proxy.requests if one == f"GET {path_of(repo_id, name, proxy)}"]
        assert len(loads) == 1, (name, loads)
    assert proxy.sent < 2 * sum((run_folder / name).stat().st_size for name in LAYOUT)


def path_of(repo_id: str, name: str, proxy: Proxy) -> str:
    """The path under which the file was downloaded, at whichever commit."""
    (path,) = {
        one.split()[1]
        for one in proxy.requests
        if f"/{repo_id}/resolve/" in one and one.endswith(f"/{name}")
    }
    return path


def test_an_adapter_that_generates_something_else_is_caught(run_folder: Path, repo_id: str) -> None:
    from hublora.generation.metadata import read_image, save_image

    image = run_folder / "images" / "0.png"
    save_image(Image.new("RGB", (64, 64), "white"), image, read_image(image))
    with pytest.raises(VerificationError, match=r"generates another image than 0.png") as caught:
        hublora.push(run_folder, repo_id)
    image_path = Path(caught.value.message.split()[-1].rstrip("."))
    with Image.open(image_path) as image:
        assert image.size == (64, 64)
    image_path.unlink()


def test_no_token_no_right_no_name_are_refused_before_anything_is_made(
    hub: object, hub_data: Path, api: HfApi, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_can_push(repo_id)
    with pytest.raises(AccessError, match=f"may not push to bases/.*me/{repo_id[3:]}"):
        check_can_push(f"bases/{repo_id[3:]}")
    assert check_can_push(repo_id[3:]) == repo_id
    for wrong in ("na me", "me/na--me", "me/x.git", "me/name@main", "./me"):
        with pytest.raises(RefError, match=r"owner/name"):
            check_can_push(wrong)
    monkeypatch.setenv("HF_TOKEN", create_token(hub_data, "me", "read"))
    with pytest.raises(AccessError, match=r"token of me may only read"):
        check_can_push(repo_id)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(AccessError, match=r"no Hub token.*hf auth login"):
        check_can_push(repo_id)
    assert not api.repo_exists(repo_id)


def test_a_training_is_refused_before_it_begins(
    hub: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    config = hublora.TrainingConfig.from_settings(
        {
            "base.model": "bases/epsilon",
            "data.dataset": "bases/images",
            "hub.push": True,
            "hub.model_id": "me/never",
            "output_dir": tmp_path / "run",
        }
    )
    events: list[object] = []
    with pytest.raises(AccessError, match=r"no Hub token"):
        hublora.train(config, callback=events.append)
    assert not events
    assert not (tmp_path / "run").exists()


def test_a_bare_name_is_pushed_to_ones_own_namespace(hub: object) -> None:
    from hublora.workflows.train.destination import resolve_destination

    config = hublora.TrainingConfig.from_settings(
        {"base.model": "bases/epsilon", "hub.push": True, "hub.model_id": "pokemon-lora"}
    )
    assert resolve_destination(config, None).hub.model_id == "me/pokemon-lora"


def test_a_hub_that_goes_away_loses_nothing(
    run_folder: Path,
    repo_id: str,
    api: HfApi,
    through: Callable[..., Proxy],
    hublora_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noise = os.urandom(64 * 64 * 3)  # the Hub has the other files of this folder already
    Image.frombytes("RGB", (64, 64), noise).save(run_folder / "images" / "1.png")
    # The card may have been brought up to date; it is a person's words that stay.
    files = [path for path in run_folder.rglob("*") if path.is_file() and path.suffix != ".md"]
    before = {path: path.read_bytes() for path in files}
    monkeypatch.chdir(run_folder.parent)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub's, between its tries
    proxy = through(dies_at=lambda request: request.startswith("PUT "))
    failed = hublora_cli("push", "run", repo_id)
    assert proxy.dead, failed.err
    assert failed.status == 1
    assert "Traceback" not in failed.err
    error = failed.err.strip().splitlines()[-1]
    command = f"hublora push run {repo_id}"
    assert error.startswith(f"Error: The push to {repo_id} did not complete")
    assert error.endswith(command)
    assert {path: path.read_bytes() for path in files} == before
    assert "Say what it is for." in (run_folder / "README.md").read_text()

    proxy.dead, proxy.dies_at = False, lambda request: False
    _, *arguments = error[error.index(command) :].split()
    done = hublora_cli(*arguments)
    assert done.status == 0, done.err
    assert files_of(api, repo_id) == LAYOUT
    token = os.environ["HF_TOKEN"]
    assert token not in failed.err + failed.out + done.err + done.out
    everything = [path.read_bytes() for path in run_folder.rglob("*") if path.is_file()]
    assert not [content for content in everything if token.encode() in content]


def test_an_upload_that_the_hub_refuses_is_a_sentence(
    run_folder: Path, repo_id: str, through: Callable[..., Proxy]
) -> None:
    """The batch answer is broken here; the client makes a ValueError of it."""

    def garble(path: str, body: bytes) -> bytes:
        return b'{"objects": "?"}' if path.endswith("/objects/batch") else body

    through(change=garble)
    with pytest.raises(PushError) as caught:
        hublora.push(run_folder, repo_id)
    assert str(caught.value).endswith(f"hublora push {run_folder} {repo_id}")
