"""Pull requests, discussions, collections, gates and likes through the real client."""

from __future__ import annotations

import os

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError


def test_a_stranger_proposes_and_the_owner_merges(api, eve, repo):
    weights = os.urandom(5000)
    commit = eve.create_commit(
        repo,
        [CommitOperationAdd("new.safetensors", weights), CommitOperationAdd("a.txt", b"one\n")],
        commit_message="Better weights",
        commit_description="Because",
        create_pr=True,
    )
    assert (commit.pr_num, commit.pr_revision) == (1, "refs/pr/1")
    assert "new.safetensors" not in api.list_repo_files(repo)
    assert "new.safetensors" in api.list_repo_files(repo, revision="refs/pr/1")
    eve.upload_file(
        path_or_fileobj=b"two\n", path_in_repo="a.txt", repo_id=repo, revision="refs/pr/1"
    )
    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.author, details.is_pull_request) == (
        "Better weights",
        "eve",
        True,
    )
    assert details.target_branch == "refs/heads/main"
    assert details.conflicting_files == []
    assert "+two" in details.diff
    assert [e.type for e in details.events] == ["comment", "commit", "commit"]
    with pytest.raises(HfHubHTTPError):
        eve.merge_pull_request(repo, 1)
    api.merge_pull_request(repo, 1, comment="Thanks")
    merged = api.get_discussion_details(repo, 1)
    assert merged.status == "merged"
    assert merged.merge_commit_oid == api.model_info(repo).sha
    assert "+two" in merged.diff
    assert "new.safetensors" in api.list_repo_files(repo)
    with pytest.raises(HfHubHTTPError):
        eve.upload_file(path_or_fileobj=b"3", path_in_repo="a", repo_id=repo, revision="refs/pr/1")
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]


def test_a_folder_can_be_proposed(eve, api, repo, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.bin").write_bytes(b"\0" * 3000)
    commit = eve.upload_folder(folder_path=tmp_path, repo_id=repo, create_pr=True)
    number = commit.pr_num or int(commit.pr_url.rpartition("/")[2])
    assert "b.bin" in api.list_repo_files(repo, revision=f"refs/pr/{number}")


def test_changes_to_the_same_file_conflict(api, eve, repo):
    api.upload_file(path_or_fileobj=b"base\n", path_in_repo="a.txt", repo_id=repo)
    proposal = [CommitOperationAdd("a.txt", b"hers\n")]
    eve.create_commit(repo, proposal, commit_message="hers", create_pr=True)
    api.upload_file(path_or_fileobj=b"mine\n", path_in_repo="a.txt", repo_id=repo)
    assert api.get_discussion_details(repo, 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError) as refusal:
        api.merge_pull_request(repo, 1)
    assert refusal.value.response.status_code == 409
    api.change_discussion_status(repo, 1, "closed", comment="Too late")
    assert api.get_discussion_details(repo, 1).status == "closed"


def test_discussions_are_opened_edited_hidden_renamed_and_listed(api, eve, nobody, repo):
    opened = eve.create_discussion(repo, "A question", description="What <script>x</script>?")
    number = opened.num
    assert "<script>" not in opened.events[0].rendered
    comment = api.comment_discussion(repo, number, "An **answer**")
    assert "<strong>answer</strong>" in comment.rendered
    edited = api.edit_discussion_comment(repo, number, comment.id, "A better answer")
    assert (edited.content, edited.edited, edited.number_of_edits) == ("A better answer", True, 1)
    with pytest.raises(HfHubHTTPError):
        eve.edit_discussion_comment(repo, number, comment.id, "Hers")
    renamed = eve.rename_discussion(repo, number, "A better question")
    assert (renamed.old_title, renamed.new_title) == ("A question", "A better question")
    with pytest.warns(UserWarning, match="Hidden"):
        assert api.hide_discussion_comment(repo, number, comment.id).hidden
    assert "better answer" not in str(api.get_discussion_details(repo, number).events)
    api.change_discussion_status(repo, number, "closed")
    eve.create_pull_request(repo, "An empty proposal")
    listed = list(nobody.get_repo_discussions(repo))
    assert [(d.num, d.is_pull_request, d.status) for d in listed] == [
        (2, True, "draft"),
        (1, False, "closed"),
    ]
    assert [d.num for d in api.get_repo_discussions(repo, discussion_type="discussion")] == [1]
    assert [d.num for d in api.get_repo_discussions(repo, discussion_status="open")] == [2]
    assert [d.num for d in api.get_repo_discussions(repo, author="me")] == []
    with pytest.raises(HfHubHTTPError):
        nobody.create_discussion(repo, "From nobody")


def test_collections_hold_repos_with_notes_in_order(api, eve, nobody, repo):
    made = api.create_collection("My adapters", description="The best", exists_ok=True)
    assert api.create_collection("My adapters", exists_ok=True).slug == made.slug
    full = api.add_collection_item(made.slug, repo, "model", note="first")
    assert (full.items[0].item_id, full.items[0].note) == (repo, "first")
    api.create_repo("me/hidden-in-collection", private=True, exist_ok=True)
    full = api.add_collection_item(made.slug, "me/hidden-in-collection", "model")
    api.add_collection_item(made.slug, repo, "model", exists_ok=True)
    api.update_collection_item(made.slug, full.items[1].item_object_id, position=0, note="moved")
    assert [i.note for i in api.get_collection(made.slug).items] == ["moved", "first"]
    assert [i.item_id for i in nobody.get_collection(made.slug).items] == [repo]
    changed = api.update_collection_metadata(made.slug, title="Mine", private=True, theme="blue")
    assert (changed.title, changed.theme, changed.private) == ("Mine", "blue", True)
    # The slug's words follow the title; the old slug goes on leading there.
    assert changed.slug == made.slug.replace("my-adapters", "mine")
    assert api.get_collection(made.slug).slug == changed.slug
    assert [c.slug for c in api.list_collections(owner="me")] == [changed.slug]
    assert list(eve.list_collections(owner="me")) == []
    with pytest.raises(HfHubHTTPError):
        eve.get_collection(made.slug)
    with pytest.raises(HfHubHTTPError):
        eve.delete_collection(made.slug)
    api.delete_collection_item(made.slug, full.items[1].item_object_id)
    api.delete_collection(made.slug)
    api.delete_collection(made.slug, missing_ok=True)
    api.delete_repo("me/hidden-in-collection")


def test_a_gated_repo_waits_for_its_owners_consent(api, eve, nobody, repo, tmp_path):
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
    api.update_repo_settings(repo, gated="manual")
    assert eve.model_info(repo).gated == "manual"
    for stranger in (eve, nobody):
        with pytest.raises(GatedRepoError):
            stranger.hf_hub_download(repo, "x.txt", cache_dir=tmp_path)
        with pytest.raises(GatedRepoError):
            stranger.auth_check(repo)
    asked = httpx.post(
        f"{api.endpoint}/{repo}/ask-access", headers={"authorization": f"Bearer {eve.token}"}
    )
    assert asked.json() == {"status": "pending"}
    assert [r.username for r in api.list_pending_access_requests(repo)] == ["eve"]
    api.accept_access_request(repo, "eve")
    assert [r.username for r in api.list_accepted_access_requests(repo)] == ["eve"]
    eve.hf_hub_download(repo, "x.txt", cache_dir=tmp_path / "eve")
    api.reject_access_request(repo, "eve", rejection_reason="no")
    with pytest.raises(GatedRepoError, match="rejected"):
        eve.auth_check(repo)
    api.grant_access(repo, "eve")
    eve.auth_check(repo)
    with pytest.raises(HfHubHTTPError):
        eve.grant_access(repo, "eve")


def test_likes_are_counted_and_listed(api, eve, repo):
    url = f"{api.endpoint}/api/models/{repo}/like"
    httpx.post(url, headers={"authorization": f"Bearer {eve.token}"}).raise_for_status()
    assert api.model_info(repo).likes == 1
    assert [user.username for user in api.list_repo_likers(repo)] == ["eve"]
    assert eve.list_liked_repos("eve").models == [repo]
    eve.unlike(repo)
    assert api.model_info(repo).likes == 0


def test_a_duplicate_has_history_and_large_files_of_its_own(api, eve, repo, tmp_path):
    weights = os.urandom(4000)
    api.upload_file(path_or_fileobj=weights, path_in_repo="w.safetensors", repo_id=repo)
    copy = eve.duplicate_repo(repo, "eve/copy")
    assert copy.repo_id == "eve/copy"
    assert eve.duplicate_repo(repo, "eve/copy", exist_ok=True).repo_id == "eve/copy"
    api.delete_repo(repo)
    path = eve.hf_hub_download("eve/copy", "w.safetensors", cache_dir=tmp_path)
    with open(path, "rb") as file:
        assert file.read() == weights
    eve.delete_repo("eve/copy")


def test_large_files_are_listed_and_erased_from_history(api, repo):
    api.upload_file(path_or_fileobj=os.urandom(4000), path_in_repo="a/w.bin", repo_id=repo)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
    (found,) = api.list_lfs_files(repo)
    assert (found.filename, found.size) == ("a/w.bin", 4000)
    api.permanently_delete_lfs_files(repo, [found])
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "x.txt"]
    assert list(api.list_lfs_files(repo)) == []
    for commit in api.list_repo_commits(repo):
        assert "a/w.bin" not in api.list_repo_files(repo, revision=commit.commit_id)


def test_one_commit_is_undone_and_later_ones_stay(api, repo):
    bad = api.upload_file(path_or_fileobj=b"bad", path_in_repo="bad.txt", repo_id=repo)
    api.upload_file(path_or_fileobj=b"good", path_in_repo="good.txt", repo_id=repo)
    undone = httpx.post(
        f"{api.endpoint}/api/models/{repo}/revert/{bad.oid}",
        headers={"authorization": f"Bearer {api.token}"},
    )
    assert undone.status_code == 200
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "good.txt"]
    gone = [CommitOperationDelete("good.txt")]
    api.create_commit(repo, gone, commit_message="Remove")
    assert api.list_repo_files(repo) == [".gitattributes"]


def test_own_repos_and_tags_are_listed(api, repo):
    card = b"---\ntags: [lora]\nlicense: mit\n---\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    assert repo in [r.id for r in api.list_user_repos()]
    assert {"id": "license:mit", "label": "mit", "type": "license"} in api.get_model_tags()[
        "license"
    ]
    assert api.get_user_overview("me").num_models >= 1
