"""What a signed-in person does in the browser: forms, sent as a browser sends them."""

from __future__ import annotations

import httpx
import pytest
from huggingface_hub import CommitOperationAdd


@pytest.fixture
def me(hub):
    """The owner's browser, signed in."""
    with httpx.Client(base_url=hub.url, auth=("me", hub.token), headers=BROWSER) as browser:
        yield browser


@pytest.fixture
def her(hub, eve):
    """The browser of somebody else, signed in."""
    with httpx.Client(base_url=hub.url, auth=("eve", eve.token), headers=BROWSER) as browser:
        yield browser


BROWSER = {"accept": "text/html"}


def test_a_discussion_is_started_answered_and_closed(api, her, me, repo):
    assert "Start a discussion" in her.get(f"/{repo}/discussions").text
    words = {"title": "A question", "description": "**Why** <script>x</script>?"}
    started = her.post(f"/{repo}/discussions", data=words)
    assert (started.status_code, started.headers["location"]) == (303, f"/{repo}/discussions/1")
    answered = me.post(f"/{repo}/discussions/1/comment", data={"comment": "Because"})
    page = me.get(answered.headers["location"]).text
    assert "<strong>Why</strong>" in page
    assert "Because" in page
    assert "<script>" not in page
    me.post(f"/{repo}/discussions/1/status", data={"status": "closed"})
    found = api.get_discussion_details(repo, 1)
    assert (found.author, found.status) == ("eve", "closed")
    assert "Open again" in her.get(f"/{repo}/discussions/1").text


def test_a_proposal_is_merged_by_the_owner_alone(api, eve, her, me, repo):
    proposal = [CommitOperationAdd("a.txt", b"one\n")]
    eve.create_commit(repo, proposal, commit_message="Add a", create_pr=True)
    assert "Merge into main" not in her.get(f"/{repo}/discussions/1").text
    assert her.post(f"/{repo}/discussions/1/merge").status_code == 403
    assert "Merge into main" in me.get(f"/{repo}/discussions/1").text
    assert me.post(f"/{repo}/discussions/1/merge").status_code == 303
    assert "a.txt" in api.list_repo_files(repo)
    assert api.get_discussion_details(repo, 1).status == "merged"


def test_a_proposal_that_clashes_says_so_instead_of_offering_to_merge(api, eve, me, repo):
    eve.create_commit(
        repo, [CommitOperationAdd("a.txt", b"hers\n")], commit_message="hers", create_pr=True
    )
    api.upload_file(path_or_fileobj=b"mine\n", path_in_repo="a.txt", repo_id=repo)
    page = me.get(f"/{repo}/discussions/1").text
    assert "both changed a.txt" in page
    assert "Merge into main" not in page
    assert me.post(f"/{repo}/discussions/1/merge").status_code == 409


def test_a_commit_is_undone_on_main(api, her, me, repo):
    wrong = api.upload_file(path_or_fileobj=b"x", path_in_repo="wrong.txt", repo_id=repo).oid
    assert "Undo this commit" not in her.get(f"/{repo}/commit/{wrong}").text
    assert her.post(f"/{repo}/revert/{wrong}").status_code == 403
    assert "Undo this commit" in me.get(f"/{repo}/commit/{wrong}").text
    undone = me.post(f"/{repo}/revert/{wrong}")
    assert undone.headers["location"] == f"/{repo}/commit/{api.model_info(repo).sha}"
    assert "wrong.txt" not in api.list_repo_files(repo)
    assert api.list_repo_commits(repo)[0].title.startswith("Revert")


def test_a_merge_is_undone_once(api, eve, me, repo):
    proposal = [CommitOperationAdd("a.txt", b"one\n")]
    eve.create_commit(repo, proposal, commit_message="Add a", create_pr=True)
    api.merge_pull_request(repo, 1)
    merged = api.model_info(repo).sha
    assert me.post(f"/{repo}/revert/{merged}").status_code == 303
    assert "a.txt" not in api.list_repo_files(repo)
    again = me.post(f"/{repo}/revert/{merged}")
    assert (again.status_code, "left to undo" in again.text) == (409, True)


def test_a_repo_is_liked_and_no_longer(api, her, repo):
    assert her.post(f"/{repo}/like", data={"liked": "yes"}).status_code == 303
    assert "Liked" in her.get(f"/{repo}").text
    assert [user.username for user in api.list_repo_likers(repo)] == ["eve"]
    her.post(f"/{repo}/like", data={"liked": "no"})
    assert api.model_info(repo).likes == 0


def test_the_owner_of_a_gated_repo_lets_people_in(api, eve, her, me, repo):
    api.update_repo_settings(repo, gated="manual")
    her.post(f"/{repo}/ask-access")
    assert "eve asks for access" not in her.get(f"/{repo}").text
    assert "eve asks for access" in me.get(f"/{repo}").text
    answer = {"user": "eve", "status": "accepted"}
    assert her.post(f"/{repo}/access", data=answer).status_code == 403
    assert me.post(f"/{repo}/access", data=answer).status_code == 303
    assert eve.list_repo_files(repo) == [".gitattributes"]


def test_who_is_not_signed_in_or_only_reads_is_offered_nothing_and_gets_nothing(hub, reader, repo):
    visitor = httpx.get(f"{hub.url}/{repo}/discussions", headers=BROWSER).text
    assert "Start a discussion" not in visitor
    assert "Sign in" in visitor
    words = {"title": "A title", "description": "words"}
    refused = httpx.post(f"{hub.url}/{repo}/discussions", data=words, headers=BROWSER)
    assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    signed_in = {"auth": ("me", reader.token), "headers": BROWSER}
    assert "Start" not in httpx.get(f"{hub.url}/{repo}/discussions", **signed_in).text
    refused = httpx.post(f"{hub.url}/{repo}/discussions", data=words, **signed_in)
    assert refused.status_code == 403


def test_collections_have_pages_that_hide_what_is_private(api, eve, her, hub, me, repo):
    made = api.create_collection("Good <i>ones</i>", description="tried")
    api.add_collection_item(made.slug, repo, "model", note="the <b>best</b>")
    shown = httpx.get(f"{hub.url}/collections/{made.slug}", headers=BROWSER).text
    assert f'href="/{repo}"' in shown
    assert "the &lt;b&gt;best" in shown
    assert "Good &lt;i&gt;ones" in httpx.get(f"{hub.url}/collections", headers=BROWSER).text
    api.update_repo_settings(repo, private=True)
    assert repo not in her.get(f"/collections/{made.slug}").text
    assert repo in me.get(f"/collections/{made.slug}").text
    api.update_collection_metadata(made.slug, private=True)
    assert her.get(f"/collections/{made.slug}").status_code == 404
    assert "Good" not in her.get("/collections").text
    api.delete_collection(made.slug)


def test_an_owners_name_leads_to_what_they_have(her, repo):
    there = her.get("/me")
    assert there.headers["location"] == "/models?author=me"
    page = her.get("/models?author=me").text
    assert repo in page
    assert "by me" in page
    assert "Nothing here that fits" in her.get("/models?author=eve&search=zzz").text
    assert her.get("/nobody-at-all").status_code == 404
