"""A Hub on a bad day: busy, silent, refusing, out of reach, or with a broken wire."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hublora
from hublora.errors import AccessError, HubError
from hublora.refs import AdapterRef
from tests.proxy import Failure, Proxy, flip_a_byte

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS = "pytorch_lora_weights.safetensors"
ONCE: list[Failure] = [(503, {}), (429, {"Retry-After": "0"}), "reset"]


def once_each(failure: Failure, where: Callable[[str], bool]) -> Callable[[str], Failure | None]:
    """Fail the first of each request that `where` accepts."""
    failed: set[str] = set()

    def fails(request: str) -> Failure | None:
        if not where(request) or request in failed:
            return None
        failed.add(request)
        return failure

    return fails


@pytest.fixture
def published(run_folder: Path, repo_id: str, api: HfApi) -> str:
    """The repo of an adapter that no cache on this machine has."""
    api.create_repo(repo_id)
    names = [WEIGHTS, "README.md"]
    api.upload_folder(repo_id=repo_id, folder_path=run_folder, allow_patterns=names)
    return repo_id


@pytest.mark.parametrize("failure", ONCE, ids=str)
def test_a_call_that_fails_once_is_repeated(
    published: str, through: Callable[..., Proxy], failure: Failure
) -> None:
    from hublora.hub.push import check_can_push
    from hublora.resolution.adapter import open_adapter

    proxy = through(fails=once_each(failure, lambda request: request.startswith("GET ")))
    (facts,) = hublora.inspect(published)
    assert facts.ranks
    assert open_adapter(AdapterRef.parse(published)).layers
    check_can_push(published)
    hublora.search(author="me")
    assert len(proxy.requests) > len(set(proxy.requests)), "some were repeated"


@pytest.mark.parametrize("failure", ONCE, ids=str)
def test_a_push_whose_read_back_fails_once_is_verified(
    run_folder: Path, repo_id: str, through: Callable[..., Proxy], failure: Failure
) -> None:
    proxy = through(fails=once_each(failure, lambda request: "/resolve/" in request))
    pushed = hublora.push(run_folder, repo_id)
    assert WEIGHTS in pushed.files
    reads = [one for one in proxy.requests if one.startswith("GET") and one.endswith(WEIGHTS)]
    assert len(reads) >= 2


def test_a_push_that_cannot_be_read_back_is_not_called_wrong(
    run_folder: Path, repo_id: str, through: Callable[..., Proxy]
) -> None:
    through(fails=lambda request: (501, {}) if "/resolve/" in request else None)
    with pytest.raises(HubError) as caught:
        hublora.push(run_folder, repo_id)
    assert "was pushed, but could not be downloaded" in caught.value.message
    assert f"hublora verify {repo_id}@" in str(caught.value.hint)


def test_a_hub_that_never_answers_is_not_waited_for(
    published: str, through: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session

    from hublora.hub import resolve, transport
    from hublora.hub.push import check_can_push

    for module in (resolve, transport):
        monkeypatch.setattr(module, "TIMEOUT", 0.5)
    close_session()
    through(fails=lambda request: "stall")
    for use in (hublora.inspect, check_can_push):
        with pytest.raises(HubError, match=r"could not be reached.*did not answer in time"):
            use(published)
    close_session()


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("at", ["/api/whoami-v2", "/commit/main", "/api/repos/create"])
def test_a_refused_push_says_that_no_files_are_lost(
    run_folder: Path, repo_id: str, through: Callable[..., Proxy], at: str, status: int
) -> None:
    through(fails=lambda request: (status, {}) if at in request else None)
    with pytest.raises(AccessError) as caught:
        hublora.push(run_folder, repo_id)
    hint = str(caught.value.hint)
    assert hint.endswith(f"All files are kept; try again with: hublora push {run_folder} {repo_id}")
    assert hint.count("All files are kept") == 1


def test_a_byte_that_flips_on_the_wire_is_refused_and_not_cached(
    published: str, through: Callable[..., Proxy]
) -> None:
    from hublora.resolution.adapter import open_adapter

    proxy = through(change=flip_a_byte(WEIGHTS))
    for _ in range(2):
        with pytest.raises(HubError, match=rf"{WEIGHTS} was damaged on its way"):
            open_adapter(AdapterRef.parse(published))
    proxy.change = lambda path, body: body
    assert open_adapter(AdapterRef.parse(published)).layers


def test_a_byte_that_flips_in_a_base_is_refused(
    through: Callable[..., Proxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    name = "unet/diffusion_pytorch_model.safetensors"
    through(change=flip_a_byte(name))
    with pytest.raises(HubError, match=r"unet/diffusion_pytorch_model.*was damaged on its way"):
        hublora.load(base="bases/epsilon")
    assert not [path for path in tmp_path.rglob("*.safetensors") if path.match(f"*/{name}")]


def test_why_the_hub_is_out_of_reach_is_named(
    published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    address = constants.ENDPOINT
    reasons = {
        address.replace("http://", "https://"): "certificate or TLS",
        "http://127.0.0.1:9": "refused",
        "ftp://127.0.0.1": "must start with https://",
    }
    for endpoint, reason in reasons.items():
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(HubError, match=rf"could not be reached.*{reason}"):
            hublora.inspect(published)


def test_only_the_address_of_a_hub_is_needed_to_push_to_it(run_folder: Path, repo_id: str) -> None:
    """Xet is off by itself where the Hub is not huggingface.co."""
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}
    code = (
        "import sys; from pathlib import Path; from hublora.hub.push import *; "
        "print(push_folder(Path(sys.argv[1]), check_can_push(sys.argv[2]), message='Push').commit)"
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", code, str(run_folder), repo_id],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 40
