"""From a ref to a commit and a file: exactly one, or an error that says what to type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save

import hublora
from hublora.errors import AccessError, AdapterError, HubError, NotFoundError
from hublora.hub.download import download
from hublora.hub.resolve import resolve_adapter
from hublora.localhub import add_user, create_token, import_folder
from hublora.progress import Progress
from hublora.refs import AdapterRef
from tests.proxy import Proxy

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DOWN, UP = "unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight"


def adapter_bytes(rank: int = 2, width: int = 4, **metadata: str) -> bytes:
    return save({DOWN: torch.ones(rank, width), UP: torch.ones(width, rank)}, metadata)


def rank_of(ref: str) -> int:
    (facts,) = hublora.inspect(ref)
    return facts.ranks[0]


@pytest.fixture
def upload(api: HfApi, repo_id: str) -> Callable[..., str]:
    """Put files into the repo in one commit; return the commit."""
    from huggingface_hub import CommitOperationAdd

    def put(files: dict[str, bytes], **where: Any) -> str:
        api.create_repo(repo_id, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        return str(api.create_commit(repo_id, operations, commit_message="Add files", **where).oid)

    return put


def test_a_push_between_resolving_and_reading_changes_nothing(
    upload: Callable[..., str], repo_id: str
) -> None:
    commit = upload({"a.safetensors": adapter_bytes(2)})
    pinned = resolve_adapter(AdapterRef.parse(f"{repo_id}:0.5")).ref
    assert str(pinned) == f"{repo_id}@{commit}/a.safetensors:0.5"
    upload({"a.safetensors": adapter_bytes(3), "b.safetensors": adapter_bytes(3)})
    copy = download(pinned.location, str(pinned.revision), str(pinned.path))
    assert copy.read_bytes() == adapter_bytes(2)
    assert rank_of(f"{repo_id}@{commit}") == 2


def test_several_adapters_are_listed_as_refs_that_work(
    upload: Callable[..., str], repo_id: str, api: HfApi
) -> None:
    upload({"README.md": b"# x"})
    api.create_branch(repo_id, branch="wild/one")
    names = ["one two.safetensors", "50%:x.safetensors"]
    upload({name: adapter_bytes(5) for name in names}, revision="wild/one")
    with pytest.raises(AdapterError, match=r"has 2 adapters") as caught:
        hublora.inspect(f"{repo_id}@wild%2Fone")
    hint = caught.value.hint
    assert hint is not None
    listed = [line.strip() for line in hint.splitlines()[1:]]
    assert len(listed) == 2
    assert [rank_of(ref) for ref in listed] == [5, 5]


def test_the_usual_name_wins_over_others(upload: Callable[..., str], repo_id: str) -> None:
    upload(
        {
            "a.safetensors": adapter_bytes(2),
            "pytorch_lora_weights.safetensors": adapter_bytes(3),
            "comfyui/a.safetensors": adapter_bytes(4),
        }
    )
    assert rank_of(repo_id) == 3
    assert rank_of(f"{repo_id}/a.safetensors") == 2
    assert rank_of(f"{repo_id}/comfyui") == 4


def test_branches_tags_and_pull_requests_are_revisions(
    upload: Callable[..., str], repo_id: str, api: HfApi
) -> None:
    upload({"a.safetensors": adapter_bytes(2)})
    api.create_tag(repo_id, tag="v1")
    api.create_branch(repo_id, branch="dev")
    upload({"a.safetensors": adapter_bytes(3)}, revision="dev")
    upload({"a.safetensors": adapter_bytes(4)}, create_pr=True)
    upload({"a.safetensors": adapter_bytes(5)})
    ranks = [rank_of(f"{repo_id}{at}") for at in ("", "@v1", "@dev", "@refs/pr/1", "@main")]
    assert ranks == [5, 2, 3, 4, 5]


def test_a_private_repo_needs_a_token(
    upload: Callable[..., str], repo_id: str, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo(repo_id, private=True)
    upload({"a.safetensors": adapter_bytes()})
    assert rank_of(repo_id) == 2
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(NotFoundError, match=r"this token may not see it.*hf auth login"):
        hublora.inspect(repo_id)


def test_a_token_that_the_hub_does_not_know_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from hublora.hub.token_owner import token_owner

    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    with pytest.raises(AccessError) as caught:
        token_owner()
    assert "does not know this token" in str(caught.value)
    assert "wrongwrong" not in str(caught.value)


def test_a_gated_repo_says_where_to_ask(hub: Any, hub_data: Path, repo_id: str) -> None:
    from huggingface_hub import HfApi

    gated = repo_id.replace("me/", "eve/")
    add_user(hub_data, "eve")
    eve = HfApi(token=create_token(hub_data, "eve"))
    eve.create_repo(gated)
    eve.upload_file(path_or_fileobj=adapter_bytes(), path_in_repo="a.safetensors", repo_id=gated)
    eve.update_repo_settings(gated, gated="manual")
    with pytest.raises(AccessError, match=r"gated") as caught:
        hublora.inspect(gated)
    assert f"{hub.url}/{gated}" in str(caught.value)


def test_what_is_not_there_is_named(upload: Callable[..., str], repo_id: str) -> None:
    with pytest.raises(NotFoundError, match=f"no model {repo_id}"):
        hublora.inspect(repo_id)
    upload({"a.safetensors": adapter_bytes(), "README.md": b"# x"})
    with pytest.raises(NotFoundError, match=r"no revision 'v9'"):
        hublora.inspect(f"{repo_id}@v9")
    with pytest.raises(NotFoundError, match=r"no file 'b.safetensors'[^!]*a\.safetensors"):
        hublora.inspect(f"{repo_id}/b.safetensors")
    with pytest.raises(NotFoundError, match=r"not a .safetensors file"):
        hublora.inspect(f"{repo_id}/README.md")


def test_a_folder_of_that_name_is_pointed_at(
    repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / repo_id).mkdir(parents=True)
    with pytest.raises(NotFoundError, match=rf"For the folder write \./{repo_id}"):
        hublora.inspect(f"hf://{repo_id}")


def test_a_folder_that_hides_a_repo_says_so(
    upload: Callable[..., str], repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hublora.progress import Note
    from hublora.resolution.adapter import open_adapter

    upload({"a.safetensors": adapter_bytes(2)})
    monkeypatch.chdir(tmp_path)
    (tmp_path / repo_id).mkdir(parents=True)
    with pytest.raises(AdapterError, match=rf"got: none\. For the repo .* write hf://{repo_id}"):
        hublora.inspect(repo_id)
    (tmp_path / repo_id / "a.safetensors").write_bytes(adapter_bytes(3))
    assert (rank_of(repo_id), rank_of(f"hf://{repo_id}")) == (3, 2)
    events: list[Any] = []
    open_adapter(AdapterRef.parse(repo_id), events.append)
    (note,) = events
    assert isinstance(note, Note)
    assert note.text == f"{repo_id} is a local folder; the repo on the Hub is hf://{repo_id}."
    open_adapter(AdapterRef.parse(f"{repo_id}/a.safetensors"), events.append)
    (tmp_path / "me" / "b.safetensors").write_bytes(adapter_bytes(3))
    open_adapter(AdapterRef.parse("me/b.safetensors"), events.append)
    assert events == [note], "a file is one"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("lambdalabs/pokemon-blip-captions", "lambdalabs/naruto-blip-captions"),
    ],
)
def test_ids_that_are_gone_name_what_took_their_place(hub: object, old: str, new: str) -> None:
    with pytest.raises(NotFoundError, match=f"deleted from the Hub. Use {new} instead"):
        hublora.inspect(old)


def test_pickles_are_not_opened(upload: Callable[..., str], repo_id: str) -> None:
    upload({"pytorch_lora_weights.bin": b"\x80\x04."})
    with pytest.raises(AdapterError, match=r"only has pickle files"):
        hublora.inspect(repo_id)
    with pytest.raises(AdapterError, match=r"only has pickle files"):
        hublora.load(repo_id)


def test_repos_without_an_adapter_say_so(upload: Callable[..., str], repo_id: str) -> None:
    upload({"README.md": b"# x"})
    with pytest.raises(AdapterError, match=r"no .safetensors file"):
        hublora.inspect(repo_id)
    upload({"deep/er/a.safetensors": adapter_bytes(7)})
    with pytest.raises(AdapterError, match=r"at its top level") as caught:
        hublora.inspect(repo_id)
    assert rank_of(str(caught.value).split()[-1]) == 7


@pytest.mark.parametrize("content", [b"", b"not safetensors", adapter_bytes()[:40]])
def test_a_broken_file_on_the_hub_is_a_sentence(
    upload: Callable[..., str], repo_id: str, content: bytes
) -> None:
    upload({"a.safetensors": content})
    for use in (hublora.inspect, hublora.load):
        with pytest.raises(AdapterError, match=r"a\.safetensors"):
            use(repo_id)


def test_a_peft_repo_is_read_with_its_settings(upload: Callable[..., str], repo_id: str) -> None:
    from hublora.resolution.adapter import open_adapter

    config = {"peft_type": "LORA", "lora_alpha": 8, "base_model_name_or_path": "bases/epsilon"}
    upload(
        {
            "adapter_model.safetensors": save(
                {
                    "base_model.model.a.to_q.lora_A.weight": torch.ones(2, 4),
                    "base_model.model.a.to_q.lora_B.weight": torch.ones(4, 2),
                }
            ),
            "adapter_config.json": json.dumps(config).encode(),
        }
    )
    adapter = open_adapter(AdapterRef.parse(repo_id))
    assert adapter.layers["unet"]["a.to_q"].scale == 4
    (inspected,) = hublora.inspect(repo_id)
    assert inspected.alphas == adapter.facts.alphas == (8,)
    assert inspected.base_model == adapter.facts.base_model == "bases/epsilon"


@pytest.mark.parametrize("front_matter", ["base_model: [", "f: !!bool x", "e: !!int ''"])
def test_a_card_with_broken_front_matter_does_no_harm(
    hub: object, hub_data: Path, repo_id: str, tmp_path: Path, front_matter: str
) -> None:
    (tmp_path / "a.safetensors").write_bytes(adapter_bytes())
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# x\n")
    import_folder(hub_data, repo_id, tmp_path)
    assert rank_of(repo_id) == 2


def test_inspecting_reads_the_header_alone(
    upload: Callable[..., str], repo_id: str, through: Callable[..., Proxy]
) -> None:
    big = adapter_bytes(64, 40_000)
    commit = upload({"a.safetensors": big})
    proxy = through()
    (facts,) = hublora.inspect(f"{repo_id}:0.5")
    assert len(big) > 20_000_000
    assert 0 < proxy.sent < 200_000
    assert (facts.ranks, facts.size) == ((64,), len(big))
    assert facts.source == f"{repo_id}@{commit}/a.safetensors"


def test_a_header_longer_than_the_first_read_is_read_whole(
    upload: Callable[..., str], repo_id: str
) -> None:
    upload({"a.safetensors": adapter_bytes(note="x" * 300_000)})
    assert rank_of(repo_id) == 2


def test_big_downloads_tell_how_far_they_are(upload: Callable[..., str], repo_id: str) -> None:
    from hublora.resolution.adapter import open_adapter

    upload({"a.safetensors": adapter_bytes(64, 40_000)})
    events: list[Any] = []
    open_adapter(AdapterRef.parse(repo_id), events.append)
    assert {(one.name, one.total, one.unit) for one in events} == {("Downloading", 20, "MB")}
    done = [one.done for one in events]
    assert done == sorted(done)
    assert done[-1] == 20
    assert all(isinstance(one, Progress) for one in events)
    events.clear()
    open_adapter(AdapterRef.parse(repo_id), events.append)
    assert not events


def test_bases_tell_how_far_they_are(
    hub: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from hublora.hub.download import download_pipeline
    from hublora.hub.resolve import inspect_repo

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = inspect_repo("bases/epsilon")
    events: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        events.append((done, total))

    folder = download_pipeline("bases/epsilon", snapshot.commit, snapshot.files, progress=tell)
    here = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    here -= (folder / "model_index.json").stat().st_size  # which says what else is downloaded
    assert events[-1] == (here, here)
    assert {total for _, total in events} == {here}
    events.clear()
    download_pipeline("bases/epsilon", snapshot.commit, snapshot.files, progress=tell)
    assert not events


def test_the_hub_is_asked_once_for_one_base(
    tmp_path: Path, through: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit, its headers and its files all come from one resolution, with an empty cache."""
    from diffusers import StableDiffusionPipeline
    from huggingface_hub import constants

    from tests.lora import random_adapter, save_adapter

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with_base = hublora.load(base="bases/epsilon")
    assert isinstance(with_base, StableDiffusionPipeline)
    file = save_adapter(random_adapter(with_base, size=0.05), tmp_path, "bases/epsilon")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another"))
    proxy = through()
    hublora.load(file)
    asked = [one for one in proxy.requests if "/api/models/bases/epsilon/revision/" in one]
    assert len(asked) == 1, proxy.requests
    assert [one for one in proxy.requests if one.endswith("/model_index.json")]


def test_a_hub_that_is_away_is_a_sentence(repo_id: str, through: Callable[..., Proxy]) -> None:
    through(dies_at=lambda request: True)
    with pytest.raises(HubError, match=r"could not be reached"):
        hublora.inspect(repo_id)


def test_a_branch_with_a_slash_is_hinted_at(
    api: HfApi, upload: Callable[..., str], repo_id: str
) -> None:
    upload({"a.safetensors": adapter_bytes(2)})
    api.create_branch(repo_id, branch="feature/ink")
    with pytest.raises(NotFoundError, match="has no revision 'feature'") as caught:
        hublora.inspect(f"{repo_id}@feature/ink")
    assert f"If feature/ink is the branch, write {repo_id}@feature%2Fink" in str(caught.value)
    assert rank_of(f"{repo_id}@feature%2Fink") == 2


INSPECT = """
import sys
import hublora

for ref in sys.argv[1:]:
    try:
        print(hublora.inspect(ref)[0].source)
    except hublora.HubloraError as error:
        print(type(error).__name__, " ".join(str(error).split()))
"""


def test_offline_what_is_ambiguous_or_gone_is_not_taken_for_another(
    upload: Callable[..., str], repo_id: str
) -> None:
    commit = upload({"a.safetensors": adapter_bytes(2), "b.safetensors": adapter_bytes(3)})
    copy = download(repo_id, commit, "a.safetensors")
    resolve_adapter(AdapterRef.parse(f"{repo_id}/a.safetensors"))
    refs = [repo_id, f"{repo_id}/a.safetensors", f"{repo_id}/b.safetensors", str(copy)]

    def inspect() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", INSPECT, *refs],
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.splitlines()

    ambiguous, one, missing, local = inspect()
    assert ambiguous.startswith(f"AdapterError {repo_id} has 2 adapters. Name one:")
    assert one == f"{repo_id}@{commit}/a.safetensors"
    assert "is not in the local cache and HF_HUB_OFFLINE is set" in missing
    assert local == str(copy)
    copy.resolve().unlink()
    _, one, _, local = inspect()
    assert "is a link to a file that does not exist, and HF_HUB_OFFLINE is set" in one
    assert "is a link to a file that does not exist" in local


def test_a_base_that_is_named_as_an_adapter_is_said_to_be_one(bases: Path) -> None:
    from hublora.resolution.adapter import download_adapter

    for name in ("bases/epsilon", str(bases / "epsilon")):
        with pytest.raises(AdapterError, match="is a base model, not an adapter") as caught:
            download_adapter(AdapterRef.parse(name))
        assert f'hublora run --base {name} "…"' in str(caught.value)
