"""Answers that no Hub gives, and those that ask for too much patience: one sentence each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hublora
from hublora.errors import AccessError, HubError, HubloraError, NotFoundError, PushError
from hublora.hub import branch_storage, push_dataset, transport
from hublora.hub.push import check_can_push
from hublora.hub.push_dataset import push_dataset_files
from hublora.localhub.store import Store
from hublora.refs import AdapterRef
from hublora.resolution.adapter import open_adapter
from tests.proxy import Failure, Proxy

Through = Callable[..., Proxy]
WEIGHTS = "pytorch_lora_weights.safetensors"
PAGE = b"<html><body>Please log in to the network of this hotel.</body></html>"


def answer(body: bytes, status: int = 200, kind: str = "application/json") -> Failure:
    return (status, {"Content-Type": kind}, body)


ODD = {
    "a page": answer(PAGE, kind="text/html"),
    "nothing": answer(b""),
    "null": answer(b"null"),
    "a list": answer(b"[7]"),
    "an object": answer(b"{}"),
    "a text": answer(b'"x"'),
    "numbers for names": answer(b'{"id": 7, "name": 7, "url": 7, "sha": []}'),
    "no text": answer(b"\xff{"),
    "depth": answer(b"[" * 100_000),
    "a refusal without words": answer(b"[]", 400),
}
USES: dict[str, Callable[[Path, str], object]] = {
    "inspect": lambda folder, repo: hublora.inspect(repo),
    "load": lambda folder, repo: hublora.load(base="bases/xl"),
    "search": lambda folder, repo: hublora.search(base="bases/epsilon"),
    "push": lambda folder, repo: hublora.push(folder, repo),
    "verify": lambda folder, repo: hublora.verify(repo),
    "dataset": lambda folder, repo: push_dataset_files({"a": b"a"}, "me/odd-data", message="a"),
    "checkpoint": lambda folder, repo: branch_storage.replace(
        repo, "checkpoint", {"README.md": folder / "README.md"}, "a"
    ),
    "no checkpoint": lambda folder, repo: branch_storage.remove(repo, "checkpoint"),
}
# Lists and flags that are empty are no mistake.
MAY_PASS = {("search", "an object"), ("no checkpoint", "an object")}


@pytest.fixture(scope="module")
def published(finished_run: Path) -> str:
    """The repo of an adapter."""
    from huggingface_hub import HfApi

    api, repo_id = HfApi(), "me/odd"
    api.create_repo(repo_id)
    names = [WEIGHTS, "README.md"]
    api.upload_folder(repo_id=repo_id, folder_path=finished_run, allow_patterns=names)
    return repo_id


@pytest.mark.parametrize("use", USES)
def test_what_no_hub_answers_is_a_sentence(
    run_folder: Path, published: str, through: Through, use: str
) -> None:
    for name, failure in ODD.items():
        through(fails=lambda request, failure=failure: failure)
        if (use, name) in MAY_PASS:
            USES[use](run_folder, published)
            continue
        with pytest.raises(HubloraError) as caught:
            USES[use](run_folder, published)
        assert "\n" not in str(caught.value), name
        assert len(str(caught.value)) < 1000, name


@pytest.mark.parametrize("at", ["GET /api/models", "HEAD ", "GET /me/odd/resolve"])
def test_a_networks_login_page_is_named(
    published: str, through: Through, at: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(transport, "_WAITS", ())
    portal = {"GET /login": ODD["a page"], "HEAD /login": ODD["a page"]}
    proxy = through()
    proxy.fails = lambda request: portal.get(
        request, (302, {"Location": f"{proxy.url}/login"}) if request.startswith(at) else None
    )
    with pytest.raises(HubError, match=r"not an answer of a Hub|arrived incomplete"):
        open_adapter(AdapterRef.parse(published))


def test_a_file_that_is_cut_off_once_is_asked_for_again(
    published: str, through: Through, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(transport, "_WAITS", (0.0, 0.0))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cuts = 1

    def cut(path: str, body: bytes) -> bytes:
        nonlocal cuts
        if not path.endswith(WEIGHTS) or not body or not cuts:
            return body
        cuts -= 1
        return body[:-1]

    proxy = through(change=cut)
    assert open_adapter(AdapterRef.parse(published)).layers
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    proxy.change = lambda path, body: body[:-1] if path.endswith(WEIGHTS) else body
    with pytest.raises(HubError, match=rf"arrived incomplete: .*size.*{WEIGHTS}"):
        open_adapter(AdapterRef.parse(published))


@pytest.mark.parametrize("use", ["inspect", "search", "push", "dataset", "open", "verify"])
def test_a_hub_that_is_down_is_asked_a_few_times_and_no_more(
    run_folder: Path,
    published: str,
    through: Through,
    use: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """huggingface_hub repeats some calls itself, and those are not repeated once more."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    uses = {**USES, "open": lambda folder, repo: open_adapter(AdapterRef.parse(repo))}
    for kind in ("GET /api", "HEAD ", "GET /me", "POST "):
        waits.clear()
        proxy = through(fails=lambda request, kind=kind: _down(request, kind))
        try:
            uses[use](run_folder, published)
        except HubError:
            failed = [one for one in proxy.requests if one.startswith(kind)]
            assert max(map(failed.count, failed)) <= 7  # huggingface_hub's own: 1 and 6 more
            assert max(waits) <= 8


def _down(request: str, kind: str) -> Failure | None:
    # What comes before the read-back of a push is good: it is the kind of the failure that counts.
    return (503, {}) if request.startswith(kind) and "/bases/" not in request else None


@pytest.mark.parametrize("use", ["inspect", "search", "push", "dataset", "load"])
def test_nobody_waits_an_hour_for_a_hub_that_asks_for_it(
    run_folder: Path, published: str, through: Through, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    through(fails=lambda request: (429, {"Retry-After": "3600"}))
    with pytest.raises(HubError, match="429"):
        USES[use](run_folder, published)
    assert not waits


def test_whose_the_token_is_is_asked_once_around_a_training_and_its_push(
    run_folder: Path, repo_id: str, through: Through
) -> None:
    from hublora.workflows.train.destination import resolve_destination

    asked: list[str] = []

    def limited(request: str) -> Failure | None:
        if "/commit/" in request:
            return (501, {})  # what comes after it is not looked at here
        if "whoami" not in request:
            return None
        asked.append(request)
        return (429, {"Retry-After": "3600"}) if len(asked) > 1 else None

    through(fails=limited)
    config = hublora.TrainingConfig.from_settings(
        {"base.model": "bases/epsilon", "hub.push": True, "hub.model_id": repo_id.split("/")[1]}
    )
    assert resolve_destination(config, None).hub.model_id == repo_id
    check_can_push(repo_id)
    with pytest.raises(PushError, match="501"):
        hublora.push(run_folder, repo_id)
    assert len(asked) == 1


def test_a_push_alone_that_meets_the_limit_of_whoami_says_that_no_files_are_lost(
    run_folder: Path, repo_id: str, through: Through
) -> None:
    through(fails=lambda request: (429, {"Retry-After": "3600"}) if "whoami" in request else None)
    with pytest.raises(HubError) as caught:
        hublora.push(run_folder, repo_id)
    assert str(caught.value).endswith(f"try again with: hublora push {run_folder} {repo_id}")


def test_a_read_only_role_is_refused_and_a_better_one_is_noticed(
    hub: Any, hub_data: Path, run_folder: Path
) -> None:
    store = Store(hub_data)
    store.people.add("studio", kind="org")
    store.people.set_member("studio", "me", "read")
    config = {
        "base.model": "bases/epsilon",
        "data.dataset": "bases/images",
        "hub.push": True,
        "hub.model_id": "studio/lora",
        "output_dir": run_folder / "new",
    }
    with pytest.raises(AccessError, match=r"me may not push to studio/.*Use one of: me/lora"):
        hublora.train(hublora.TrainingConfig.from_settings(config), callback=lambda event: None)
    assert not (run_folder / "new").exists()
    store.people.set_member("studio", "me", "write")
    check_can_push("studio/lora")


def test_a_fine_grained_token_writes_where_its_scopes_say(through: Through) -> None:
    def scoped(path: str, body: bytes) -> bytes:
        if "whoami" not in path:
            return body
        scopes = [
            {"entity": {"type": "user", "name": "me"}, "permissions": ["repo.content.read"]},
            {"entity": {"type": "model", "name": "me/mine"}, "permissions": ["repo.write"]},
        ]
        told = json.loads(body)
        told["auth"]["accessToken"] |= {"role": "fineGrained", "fineGrained": {"scoped": scopes}}
        return json.dumps(told).encode()

    through(change=scoped)
    check_can_push("me/mine")
    with pytest.raises(AccessError, match=r"fine-grained token of me may not write to me/other"):
        check_can_push("me/other")


def test_why_a_card_is_refused_reaches_the_person(
    run_folder: Path, repo_id: str, through: Through
) -> None:
    why = {"errors": [{"message": '"license" must be one of [mit, …]'}], "warnings": []}
    refusal = answer(json.dumps(why).encode(), 400)
    through(fails=lambda request: refusal if "validate-yaml" in request else None)
    with pytest.raises(PushError, match=r'Invalid metadata in README.md. - "license" must be one'):
        hublora.push(run_folder, repo_id)


def test_many_images_go_in_several_commits(
    hub: Any, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(push_dataset, "_COMMIT_FILES", 3)
    monkeypatch.setattr(push_dataset, "_COMMIT_BYTES", 2000)
    files: dict[str, Path | bytes] = {f"{number}.bin": b"%d" % number for number in range(7)}
    files |= {"large.bin": bytes(2000), "metadata.jsonl": b"{}\n"}
    pushed = push_dataset_files(files, repo_id, message="Images")
    history = HfApi().list_repo_commits(repo_id, repo_type="dataset")
    assert [one.title for one in history[:4]] == [f"Images ({n} of 4)" for n in (4, 3, 2, 1)]
    assert history[0].commit_id == pushed.commit
    assert set(files) <= set(HfApi().list_repo_files(repo_id, repo_type="dataset"))


def test_a_proxy_that_is_down_is_named_without_its_password(
    published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session

    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    close_session()
    try:
        with pytest.raises(HubError, match=r"reached.*: the proxy 127.0.0.1:9 failed") as one:
            hublora.inspect(published)
    finally:
        close_session()
    assert "secret" not in str(one.value)


def test_xet_is_named_and_how_to_do_without(
    run_folder: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Hub that does not speak it, and a person who has switched it on."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "0")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "1ms")
    with pytest.raises(
        PushError, match=r"Xet, which moves large files of the Hub, failed.*404"
    ) as one:
        hublora.push(run_folder, repo_id)
    assert "HF_HUB_DISABLE_XET=1" in str(one.value)
    assert str(one.value).endswith(f"hublora push {run_folder} {repo_id}")


def xet_at(address: str) -> Callable[[str], Failure | None]:
    """Return what a Hub answers that has large files sent to an address."""
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": "1"}
    return lambda request: (200, headers) if "/xet-read-token/" in request else None


def test_a_storage_that_cannot_be_reached_is_told_before_training(
    through: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Xet's is another address than the Hub's: a network may allow one and not the other."""
    from huggingface_hub import constants

    from hublora.workflows.train.dry_run import dry_run

    proxy = through(fails=xet_at("http://127.0.0.1:9/"))
    config = hublora.TrainingConfig.from_settings(
        {
            "base.model": "bases/epsilon",
            "data.dataset": "bases/nothing",
            "hub.push": True,
            "hub.model_id": "me/not-yet-there",
            "output_dir": tmp_path / "run",
        }
    )
    with pytest.raises(NotFoundError, match="bases/nothing"):  # Xet is off: nobody asks for it
        dry_run(config)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match=r"sent to 127\.0\.0\.1:9 \(Xet\), which cannot") as one:
        dry_run(config)
    assert "HF_HUB_DISABLE_XET=1" in str(one.value)
    proxy.fails = xet_at(f"{proxy.url}/anywhere")  # whatever it answers, it is there
    with pytest.raises(NotFoundError, match="bases/nothing"):
        dry_run(config)
    proxy.fails = lambda request: (404, {}) if "/xet-read-token/" in request else None
    with pytest.raises(NotFoundError, match="bases/nothing"):
        dry_run(config)
