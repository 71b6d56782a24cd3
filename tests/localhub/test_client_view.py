"""What huggingface_hub and the JavaScript client read from an answer besides its content."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hublora.localhub.store import Store, database


def test_a_name_without_owner_is_a_missing_repo_everywhere(api, hub):
    assert not api.revision_exists("gpt2", "main")
    assert not api.file_exists("gpt2", "config.json")
    for ask in (
        lambda: api.list_repo_commits("gpt2"),
        lambda: api.list_repo_refs("gpt2"),
        lambda: list(api.list_repo_tree("gpt2")),
        lambda: api.unlike("gpt2"),
        lambda: api.create_branch("gpt2", branch="x"),
        lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="gpt2"),
        lambda: api.get_repo_discussions("gpt2").__next__(),
        lambda: api.update_repo_settings("gpt2", private=True),
    ):
        with pytest.raises(RepositoryNotFoundError):
            ask()
    for page in ("/gpt2/resolve/main/x", "/datasets/squad/tree/main", "/gpt2.git/info/refs"):
        answer = httpx.get(hub.url + page)
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound"), page


def test_every_answer_bears_the_id_of_its_request(hub, api, repo):
    places = ("/health", "/api/models", f"/{repo}/resolve/main/.gitattributes", "/nothing/at/all/x")
    for place in places:
        answer = httpx.get(hub.url + place, headers={"X-Amzn-Trace-Id": "one-two"})
        assert answer.headers["x-request-id"] == "one-two"
        assert len(httpx.get(hub.url + place).headers["x-request-id"]) == 36
    strange = httpx.get(hub.url + "/health", headers={"X-Request-Id": "a\tb<script>"})
    assert "script" not in strange.headers["x-request-id"]
    with pytest.raises(RepositoryNotFoundError, match="Request ID: "):
        api.model_info("me/nothing")


def test_a_path_that_no_file_can_have_is_422(api, repo):
    with pytest.raises(HfHubHTTPError) as refused:
        api.upload_file(path_or_fileobj=b"x", path_in_repo="..\\evil", repo_id=repo)
    assert refused.value.response.status_code == 422


def test_what_cannot_be_a_revision_is_one_that_is_not_there(api, repo):
    assert not api.revision_exists(repo, "no such thing")
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(repo, tag="an impossible tag", revision="nothing")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, ".gitattributes", revision="a..b")


def test_head_is_the_default_branch(api, hub, repo):
    info = httpx.get(f"{hub.url}/api/models/{repo}/revision/HEAD").json()
    assert info["sha"] == api.model_info(repo).sha
    assert httpx.get(f"{hub.url}/{repo}/resolve/HEAD/.gitattributes").status_code == 200


def test_a_history_says_how_long_it_is(api, hub, repo):
    for number in range(3):
        api.upload_file(path_or_fileobj=b"%d" % number, path_in_repo="x", repo_id=repo)
    one = httpx.get(f"{hub.url}/api/models/{repo}/commits/main?limit=1")
    assert (len(one.json()), one.headers["x-total-count"]) == (1, "4")


def test_refusals_are_worded_as_the_clients_tests_expect(api, repo):
    first = api.model_info(repo).sha
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
    with pytest.raises(HfHubHTTPError, match="The branch was updated since you opened this page"):
        api.create_commit(
            repo, [CommitOperationAdd("y", b"y")], commit_message="y", parent_commit=first
        )
    with pytest.raises(HfHubHTTPError, match="Reference refs/heads/main already exists"):
        api.create_branch(repo, branch="main")
    api.create_tag(repo, tag="v1")
    with pytest.raises(HfHubHTTPError, match="Reference refs/tags/v1 already exists"):
        api.create_tag(repo, tag="v1")
    with pytest.raises(HfHubHTTPError, match="Cannot delete refs/heads/main"):
        api.delete_branch(repo, branch="main")
    other = api.create_repo("a-taken-name").repo_id
    with pytest.raises(HfHubHTTPError, match=f"A model repository called {other} already exists"):
        api.move_repo(repo, other)
    api.delete_repo(other)


def test_a_folder_is_deleted_without_its_slash_too(api, repo):
    paths = ("d/a.txt", "d/e/b.txt", "dd.txt")
    api.create_commit(repo, [CommitOperationAdd(p, b"x") for p in paths], commit_message="three")
    api.create_commit(repo, [CommitOperationDelete("d", is_folder=False)], commit_message="gone")
    assert api.list_repo_files(repo) == [".gitattributes", "dd.txt"]
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist: d"):
        api.create_commit(repo, [CommitOperationDelete("d")], commit_message="again")


def test_large_files_have_the_names_of_other_branches_and_of_the_past(api, repo):
    def put(path, **where):
        api.upload_file(path_or_fileobj=path.encode(), path_in_repo=path, repo_id=repo, **where)

    put("past.bin")
    api.delete_file("past.bin", repo)
    put("d/now.bin")
    api.create_branch(repo, branch="side")
    put("side.bin", revision="side")
    put("proposed.bin", create_pr=True)
    found = {file.filename: file.ref for file in api.list_lfs_files(repo)}
    expected = {"past.bin": "main", "d/now.bin": "main", "side.bin": "side"}
    assert found == expected | {"proposed.bin": "refs/pr/1"}


def test_raw_is_the_blob_itself(api, hub, repo):
    content = os.urandom(3000)
    api.upload_file(path_or_fileobj=content, path_in_repo="x.bin", repo_id=repo)
    pointer = httpx.get(f"{hub.url}/{repo}/raw/main/x.bin")
    assert f"oid sha256:{hashlib.sha256(content).hexdigest()}\nsize 3000" in pointer.text
    assert httpx.get(f"{hub.url}/{repo}/resolve/main/x.bin").content == content
    plain = httpx.get(f"{hub.url}/{repo}/raw/main/.gitattributes").text
    assert plain.startswith("*.7z filter=lfs")


def test_nobody_is_let_in_put_back_or_turned_away_twice(api, repo):
    api.update_repo_settings(repo, gated="manual")
    api.grant_access(repo, "eve")
    for again, status in (
        (lambda: api.grant_access(repo, "eve"), 400),
        (lambda: api.accept_access_request(repo, "eve"), 404),
        (lambda: api.reject_access_request(repo, "eve", rejection_reason="no"), None),
        (lambda: api.reject_access_request(repo, "eve", rejection_reason="no"), 404),
        (lambda: api.cancel_access_request(repo, "eve"), None),
        (lambda: api.cancel_access_request(repo, "eve"), 404),
        (lambda: api.grant_access(repo, "eve"), None),
    ):
        if status is None:
            again()
            continue
        with pytest.raises(HfHubHTTPError) as refused:
            again()
        assert refused.value.response.status_code == status
    assert [each.username for each in api.list_accepted_access_requests(repo)] == ["eve"]


def test_members_who_write_create_rename_and_delete_repos_of_their_organisation(hub, api, eve):
    people = Store(hub.data_dir).people
    people.add("workshop", "org", "The Workshop")
    people.set_member("workshop", "eve", "write")
    people.set_member("workshop", "me", "read")
    made = eve.create_repo("workshop/first", private=True).repo_id
    eve.update_repo_settings(made, gated="auto")
    eve.move_repo(made, "workshop/second")
    with pytest.raises(HfHubHTTPError):
        api.delete_repo("workshop/second")
    with pytest.raises(HfHubHTTPError):
        api.create_repo("workshop/mine")
    eve.delete_repo("workshop/second")
    orgs = {org["name"]: org["fullname"] for org in eve.whoami()["orgs"]}
    assert orgs["workshop"] == "The Workshop"


def test_collections_follow_renames_and_forget_what_is_deleted(api, repo):
    made = api.create_collection("Followed")
    api.add_collection_item(made.slug, repo, "model", note="good")
    renamed = repo + "-renamed"
    api.move_repo(repo, renamed)
    found = api.get_collection(made.slug).items
    assert [(item.item_id, item.note) for item in found] == [(renamed, "good")]
    assert [each.slug for each in api.list_collections(item=f"models/{renamed}")] == [made.slug]
    api.delete_repo(renamed)
    api.create_repo(renamed)
    assert api.get_collection(made.slug).items == []
    api.delete_repo(renamed)
    api.delete_collection(made.slug)


def test_filters_that_nothing_here_can_meet_are_not_ignored(api, repo):
    assert list(api.list_models(inference_provider="fal-ai")) == []
    assert list(api.list_models(inference="warm")) == []
    with pytest.raises(BadRequestError, match="does not know apps"):
        list(api.list_models(apps="ollama"))


def weights(count: int) -> bytes:
    """Return a safetensors file of so many numbers."""
    facts = {"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    header = json.dumps(facts).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * count)


def test_models_are_found_by_how_many_parameters_they_have(api, repo):
    api.upload_file(path_or_fileobj=weights(1500), path_in_repo="w.safetensors", repo_id=repo)

    def found(wanted: str) -> list[str]:
        search = repo.partition("/")[2]
        return [each.id for each in api.list_models(num_parameters=wanted, search=search)]

    for wanted in ("min:1.5K,max:1.5K", "min:1K", "max:1M", "max:1B,min:0"):
        assert found(wanted) == [repo]
    for wanted in ("min:2K", "max:1K"):
        assert found(wanted) == []
    with pytest.raises(BadRequestError, match="min:NUMBER"):
        found("6B")


def test_a_search_looks_into_the_metadata_and_a_page_into_the_text_too(api, hub, repo):
    card = "---\ntags: [lora, Zebra-tag]\nbase_model: hublora/quagga-sd\n"
    card += "instance_prompt: okapi style\n---\n# Words\nA gnu in the savanna.\n"
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repo)
    for text in ("zebra", "quagga", "okapi", "OKAPI style zebra", repo.partition("/")[2]):
        assert [model.id for model in api.list_models(search=text)] == [repo]
    assert list(api.list_models(search="savanna")) == []
    for text, shown in (("savanna", True), ("gnu okapi", True), ("gnu giraffe", False)):
        page = httpx.get(f"{hub.url}/models?search={text}").text
        assert (f'href="/{repo}"' in page) == shown, text


def test_a_register_of_an_older_version_is_indexed_anew(tmp_path):
    old = sqlite3.connect(tmp_path / "hub.sqlite", isolation_level=None)
    for schema in database.SCHEMAS[:2]:
        old.executescript(schema)
    old.execute("PRAGMA user_version = 2")
    old.close()
    store = Store(tmp_path)
    store.people.add("me")
    made = store.create_repo("model", "me", "a")
    assert [repo.id for repo in store.repos.stale()] == []
    with store.database.write() as connection:
        connection.execute("DELETE FROM repo_texts")
        connection.execute("UPDATE repos SET stale = 1")
    store.recover()
    rows = store.database.rows("SELECT repo FROM repo_texts")
    assert [row["repo"] for row in rows] == [made.id]
