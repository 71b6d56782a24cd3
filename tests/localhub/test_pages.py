"""Pages for a browser, as text; the screenshots are looked at by people."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess

import httpx
import pytest
from huggingface_hub import CommitOperationAdd

CARD = """---
base_model: hublora/tiny-sd
tags: [lora]
license: other
license_name: mine
widget:
- text: a <b>red</b> "circle"
  output: {url: images/0.png}
- text: elsewhere
  output: {url: https://evil.example/x.png}
---
# Dots
<Gallery />
Words.
"""


@pytest.fixture
def lora(api, repo):
    api.create_commit(
        repo,
        [
            CommitOperationAdd("README.md", CARD.encode()),
            CommitOperationAdd("images/0.png", b"\x89PNG\0one"),
            CommitOperationAdd("w.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
            CommitOperationAdd("a b/<i>&.txt", b"<script>alert(1)</script>"),
        ],
        commit_message="Add <i>dots</i>",
    )
    return repo


def get(hub, path, **headers):
    """Get a page as a browser does."""
    return httpx.get(hub.url + path, headers={"accept": "text/html", **headers})


def test_a_repo_page_shows_the_card_its_gallery_and_how_to_use_it(hub, lora):
    page = get(hub, f"/{lora}")
    assert page.status_code == 200
    assert "<h1>Dots</h1>" in page.text
    assert "a &lt;b&gt;red&lt;/b&gt; &#34;circle&#34;" in page.text
    assert "evil.example" not in page.text
    assert f"hublora run {lora}" in page.text
    assert 'href="/hublora/tiny-sd"' in page.text
    assert "script-src" not in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_code_that_would_leave_learned_words_out_is_not_shown(hub, api, lora):
    assert "load_lora_weights" in get(hub, f"/{lora}").text
    api.upload_file(path_or_fileobj=b"x", path_in_repo="embeddings/w.safetensors", repo_id=lora)
    page = get(hub, f"/{lora}").text
    assert f"hublora run {lora}" in page
    assert "load_lora_weights" not in page
    card = b"---\nlibrary_name: diffusers\ntags: [textual_inversion]\n---\n# A word\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=lora)
    page = get(hub, f"/{lora}").text
    assert f"hublora run {lora}" in page
    assert "DiffusionPipeline" not in page


def test_a_command_to_copy_holds_the_prompt_as_one_word_and_runs_nothing_of_it(hub, api, repo):
    hostile = 'a "b" $(touch x) `y` \\ it\'s'
    widget = json.dumps([{"text": hostile, "output": {"url": "images/0.png"}}])
    card = f"---\nbase_model: b/c\ntags: [lora]\nwidget: {widget}\n---\n# X\n"
    files = {"README.md": card.encode(), "images/0.png": b"\x89PNG\0one"}
    for name, content in files.items():
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo)
    shown = re.search(r"<code>(hublora run .*?)</code>", get(hub, f"/{repo}").text, re.S)
    assert shown
    assert shlex.split(html.unescape(shown[1])) == ["hublora", "run", repo, hostile]
    done = subprocess.run(
        ["sh", "-c", html.unescape(shown[1]).replace("hublora run", "printf '%s\n'", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{repo}\n{hostile}\n"


def test_a_dataset_of_pictures_shows_the_first_ones_with_their_captions(hub, api):
    api.create_repo("pictures", repo_type="dataset")
    rows = [{"file_name": f"{n:02}.png", "text": f"<i>picture</i> {n}"} for n in range(20)]
    files = {row["file_name"]: b"\x89PNG\0" + row["text"].encode() for row in rows}
    files["metadata.jsonl"] = "\n".join([*map(json.dumps, rows), "[]", "{"]).encode()
    api.create_commit(
        "me/pictures",
        [CommitOperationAdd(name, content) for name, content in files.items()],
        repo_type="dataset",
        commit_message="Pictures",
    )
    page = get(hub, "/datasets/me/pictures").text
    assert page.count("<figure>") == 12
    assert "&lt;i&gt;picture&lt;/i&gt; 11" in page
    assert "<i>picture" not in page


def test_a_space_is_shown_and_says_that_it_does_not_run(hub, api):
    api.create_repo("shown", repo_type="space", space_sdk="static")
    page = get(hub, "/spaces/me/shown").text
    assert "does not run them" in page
    assert "<dd>static</dd>" in page
    api.delete_repo("shown", repo_type="space")


def test_stylesheet_and_icon_are_there_and_nothing_else(hub):
    assert get(hub, "/_static/hub.css").headers["content-type"].startswith("text/css")
    assert get(hub, "/_static/icon.svg").headers["content-type"] == "image/svg+xml"
    assert get(hub, "/_static/base.html.jinja").status_code == 404


def test_lists_search_and_link_to_tags(hub, lora):
    page = get(hub, f"/models?search={lora.split('/')[1]}")
    assert lora in page.text
    assert "images/0.png" in page.text
    assert lora in get(hub, "/models?filter=lora").text
    assert "Nothing here" in get(hub, "/models?search=nothing-at-all").text
    assert "<script>" not in get(hub, "/models?search=<script>&filter=<script>").text
    assert httpx.get(hub.url + "/", follow_redirects=True).status_code == 200


def test_files_history_and_changes_are_shown_and_escaped(hub, api, lora):
    files = get(hub, f"/{lora}/tree/main/a%20b")
    assert "&lt;i&gt;&amp;.txt" in files.text
    file = get(hub, f"/{lora}/blob/main/a%20b/%3Ci%3E%26.txt")
    assert "&lt;script&gt;alert(1)" in file.text
    first = api.model_info(lora).sha
    changed = [CommitOperationAdd("images/0.png", b"\x89PNG\0two")]
    newest = api.create_commit(lora, changed, commit_message="Again")
    assert "Add &lt;i&gt;dots" in get(hub, f"/{lora}/commits/main").text
    assert "images/0.png" in get(hub, newest.commit_url.removeprefix(hub.url)).text
    compared = get(hub, f"/{lora}/compare/{first}..{newest.oid}").text
    assert f"resolve/{first}/images/0.png" in compared
    assert f"resolve/{newest.oid}/images/0.png" in compared


def test_content_from_a_repo_never_runs_with_the_servers_name(hub, api, repo):
    for name, kind in (("x.html", "text/plain"), ("x.svg", "application/octet-stream")):
        api.upload_file(path_or_fileobj=b"<script>", path_in_repo=name, repo_id=repo)
        answer = get(hub, f"/{repo}/resolve/main/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_pull_requests_page_tells_what_was_said_and_changed(hub, api, eve, lora):
    proposal = [CommitOperationAdd("notes.txt", b"<b>new</b>\n")]
    made = eve.create_commit(
        lora,
        proposal,
        commit_message="Add <i>notes</i>",
        commit_description="<script>alert(1)</script>\n\n*why*",
        create_pr=True,
    )
    page = get(hub, made.pr_url.removeprefix(hub.url)).text
    assert "Add &lt;i&gt;notes" in page
    assert "<em>why</em>" in page
    assert "<script>" not in page
    assert "+&lt;b&gt;new" in page
    assert "Add &lt;i&gt;notes" in get(hub, f"/{lora}/discussions").text
    assert get(hub, f"/{lora}/tree/refs%2Fpr%2F1").status_code == 200
    assert get(hub, f"/{lora}/compare/main..refs%2Fpr%2F1").status_code == 200
    assert get(hub, f"/{lora}/discussions/77").status_code == 404


def test_a_gated_repos_page_shows_the_card_and_a_way_to_ask(hub, api, eve, lora):
    api.update_repo_settings(lora, gated="manual")
    page = get(hub, f"/{lora}").text
    assert "Sign in" in page
    assert "images/0.png" not in page
    signed_in = {"headers": {"accept": "text/html"}, "auth": ("eve", eve.token)}
    assert "Ask for access" in httpx.get(f"{hub.url}/{lora}", **signed_in).text
    asked = httpx.post(f"{hub.url}/{lora}/ask-access", **signed_in)
    assert asked.status_code == 303
    assert "request is pending" in httpx.get(f"{hub.url}/{lora}", **signed_in).text


def test_a_private_repos_page_opens_only_after_signing_in(hub, api):
    api.create_repo("me/hidden", private=True, exist_ok=True)
    assert get(hub, "/me/hidden").status_code == 404
    assert "hidden" not in get(hub, "/models?search=hidden").text.replace('value="hidden"', "")
    asked = get(hub, "/login?next=/me/hidden")
    assert (asked.status_code, asked.headers["www-authenticate"][:5]) == (401, "Basic")
    signed_in = httpx.get(hub.url + "/login?next=/me/hidden", auth=("me", hub.token))
    assert signed_in.headers["location"] == "/me/hidden"
    assert httpx.get(hub.url + "/me/hidden", auth=("me", hub.token)).status_code == 200
    away = httpx.get(hub.url + "/login?next=//evil.example", auth=("me", hub.token))
    assert away.headers["location"] == "/"
    api.delete_repo("me/hidden")


def test_another_site_cannot_make_a_signed_in_browser_change_anything(hub, api, repo):
    name = {"name": repo.split("/")[1]}
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"host": "evil.example"},
    ):
        answer = httpx.request(
            "DELETE",
            f"{hub.url}/api/repos/delete",
            json=name,
            auth=("me", hub.token),
            headers=headers,
        )
        assert answer.status_code == 403
    assert api.repo_exists(repo)
