"""Repos, refs and people through the real client."""

from __future__ import annotations

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hublora.localhub import create_token
from hublora.localhub.store import Store


def status(refusal) -> int:
    """Return the HTTP status behind an exception of the client."""
    return refusal.value.response.status_code


def test_whoami_tells_name_and_role(api, reader):
    assert api.whoami()["name"] == "me"
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"


def test_a_wrong_token_is_told_from_a_missing_repo(hub, repo):
    wrong = HfApi(endpoint=hub.url, token="hf_wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid") as refusal:
        wrong.whoami()
    assert status(refusal) == 401
    with pytest.raises(HfHubHTTPError) as refusal:
        wrong.model_info(repo)
    assert not isinstance(refusal.value, RepositoryNotFoundError)


def test_a_revoked_token_opens_nothing(hub):
    token = create_token(hub.data_dir, "me")
    client = HfApi(endpoint=hub.url, token=token)
    assert client.whoami()["name"] == "me"
    Store(hub.data_dir).people.revoke_token(token)
    with pytest.raises(HfHubHTTPError):
        client.whoami()


def test_creating_twice_is_409_unless_it_may_exist(api, repo):
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_repo(repo)
    assert status(refusal) == 409
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    assert api.create_repo(repo.split("/")[1].upper(), exist_ok=True).repo_id == repo


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_each_kind_has_names_of_its_own(api, kind):
    url = api.create_repo("same", repo_type=kind, space_sdk="static" if kind == "space" else None)
    assert (url.repo_id, url.repo_type) == ("me/same", kind)
    assert api.repo_info("me/same", repo_type=kind).id == "me/same"
    assert "me/same" in [r.id for r in getattr(api, f"list_{kind}s")()]
    api.delete_repo("me/same", repo_type=kind)
    assert not api.repo_exists("me/same", repo_type=kind)


def test_a_private_repo_is_not_there_for_others(api, eve, nobody):
    api.create_repo("me/secret", private=True)
    assert api.model_info("me/secret").private is True
    for stranger in (eve, nobody):
        with pytest.raises(RepositoryNotFoundError) as refusal:
            stranger.model_info("me/secret")
        assert status(refusal) == 404
        assert "me/secret" not in [m.id for m in stranger.list_models()]
        with pytest.raises(RepositoryNotFoundError):
            stranger.auth_check("me/secret")
    api.update_repo_settings("me/secret", private=False)
    assert nobody.model_info("me/secret").private is False
    api.delete_repo("me/secret")


def test_only_the_owner_changes_a_repo(api, eve, nobody, reader, repo):
    for other in (eve, reader):
        with pytest.raises(HfHubHTTPError) as refusal:
            other.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
        assert status(refusal) == 403
        with pytest.raises(HfHubHTTPError) as refusal:
            other.delete_repo(repo)
        assert status(refusal) == 403
        with pytest.raises(HfHubHTTPError):
            other.auth_check(repo, write=True)
    with pytest.raises(HfHubHTTPError):
        eve.create_repo("me/for-eve")
    with pytest.raises(HfHubHTTPError) as refusal:
        nobody.create_repo("me/for-nobody")
    assert status(refusal) == 401
    api.auth_check(repo, write=True)
    eve.auth_check(repo)


def test_a_moved_repo_is_found_under_both_names(api, repo):
    api.move_repo(repo, "me/moved")
    assert api.model_info("me/moved").id == "me/moved"
    assert api.model_info(repo).id == "me/moved"
    api.delete_repo("me/moved")


def test_branches_and_tags_come_and_go(api, repo):
    main = api.model_info(repo).sha
    api.create_branch(repo, branch="try/this")
    commit = api.upload_file(
        path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision="try/this"
    )
    api.create_tag(repo, tag="v1", revision="try/this", tag_message="first")
    api.create_tag(repo, tag="v0")
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert {b.name: b.target_commit for b in refs.branches} == {
        "main": main,
        "try/this": commit.oid,
    }
    assert {t.name: t.target_commit for t in refs.tags} == {"v1": commit.oid, "v0": main}
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_branch(repo, branch="try/this")
    assert status(refusal) == 409
    api.create_branch(repo, branch="try/this", exist_ok=True)
    api.create_tag(repo, tag="v1", exist_ok=True)
    assert api.model_info(repo, revision="v1").sha == commit.oid
    api.delete_branch(repo, branch="try/this")
    api.delete_tag(repo, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="try/this")
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(repo, branch="main")


def test_squashing_leaves_one_commit_with_the_same_files(api, repo):
    for i in range(3):
        api.upload_file(path_or_fileobj=b"x", path_in_repo=f"{i}", repo_id=repo)
    before = api.list_repo_files(repo)
    api.super_squash_history(repo, commit_message="one")
    assert [c.title for c in api.list_repo_commits(repo)] == ["one"]
    assert api.list_repo_files(repo) == before


def test_what_is_not_here_is_refused_in_a_sentence(api, hub, repo):
    for ask in (
        lambda: api.list_jobs(),
        lambda: api.request_space_hardware(repo, "t4-medium"),
    ):
        with pytest.raises(HfHubHTTPError, match="This Hub has no"):
            list(ask() or ())
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("gpt2", "config.json")
    url = f"{hub.url}/api/models/{repo}/xet-write-token/main"
    assert "HF_HUB_DISABLE_XET=1" in httpx.get(url).text
    assert "A client tried Xet" in (hub.data_dir / "log").read_text()
