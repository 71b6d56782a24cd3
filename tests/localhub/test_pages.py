"""Pages for a browser, as text; the screenshots are looked at by people."""

from __future__ import annotations

import base64
import hashlib
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
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", page.text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert re.findall(r"script-src [^;]*", policy) == [f"script-src 'sha256-{digest}'"]
    assert "script-src" not in get(hub, "/models").headers["content-security-policy"]


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


def test_a_dataset_shows_all_its_images_page_by_page_with_their_captions(hub, api):
    api.create_repo("images", repo_type="dataset")
    rows = [{"file_name": f"{n:02}.png", "text": f"<i>image</i> {n}"} for n in range(30)]
    files = {row["file_name"]: b"\x89PNG\0" + row["text"].encode() for row in rows}
    files["metadata.jsonl"] = "\n".join([*map(json.dumps, rows), "[]", "{"]).encode()
    files["train/b.png"], files["train/b.txt"] = b"\x89PNG\0b", b"words beside it"
    files["train/c.png"] = b"\x89PNG\0c"
    files["train/metadata.csv"] = b"file_name,caption\nc.png,of a table\n"
    api.create_commit(
        "me/images",
        [CommitOperationAdd(name, content) for name, content in files.items()],
        repo_type="dataset",
        commit_message="Images",
    )
    first = get(hub, "/datasets/me/images").text
    assert first.count("<figure>") == 24
    assert "&lt;i&gt;image&lt;/i&gt; 23" in first
    assert "<i>image" not in first
    (following,) = re.findall(r'<a href="(\?images=[0-9]+)">More images', first)
    second = get(hub, f"/datasets/me/images{following}").text
    assert second.count("<figure>") == 8
    for caption in ("image&lt;/i&gt; 29", "words beside it", "of a table"):
        assert caption in second
    assert "More images" not in second


def test_images_of_this_hub_show_wherever_their_address_says_so(hub, api, eve, lora):
    sha = api.model_info(lora).sha
    words = f"""
![relative](images/0.png) ![blob](/{lora}/blob/main/images/0.png)
![path](/{lora}/resolve/main/images/0.png) ![whole]({hub.url}/{lora}/resolve/main/images/0.png)
<img alt="data" src="/datasets/me/x/raw/main/a%20b.png">
![away](https://evil.example/x.png) ![up](/{lora}/resolve/main/../../x.png)
![other]({hub.url}.evil.example/{lora}/resolve/main/x.png) ![api](/api/models)
"""
    number = eve.create_discussion(lora, "Images", description=words).num
    card = f"---\ntags: [lora]\n---\n{words}"
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=lora)
    newest = api.model_info(lora).sha
    assert newest != sha
    for page, rev in ((f"/{lora}", newest), (f"/{lora}/discussions/{number}", "main")):
        tags = re.findall(r"<img [^>]*>", get(hub, page).text)
        shown = {
            re.findall(r'alt="(\w+)"', tag)[0]: re.findall(r' src="([^"]+)"', tag)[0]
            for tag in tags
            if " src=" in tag
        }
        here = f"/{lora}/resolve/main/images/0.png"
        assert shown == {
            "relative": f"/{lora}/resolve/{rev}/images/0.png",
            "blob": here,
            "path": here,
            "whole": here,
            "data": "/datasets/me/x/resolve/main/a%20b.png",
        }


def test_a_gallery_may_name_its_images_by_their_whole_address(hub, api, repo):
    places = (f"{hub.url}/{repo}/resolve/main/a.png", f"/{repo}/blob/main/b.png")
    widget = json.dumps([{"text": "x", "output": {"url": place}} for place in places])
    api.create_commit(
        repo,
        [
            CommitOperationAdd("README.md", f"---\nwidget: {widget}\n---\n".encode()),
            CommitOperationAdd("a.png", b"\x89PNG\0a"),
            CommitOperationAdd("b.png", b"\x89PNG\0b"),
        ],
        commit_message="gallery",
    )
    sha = api.model_info(repo).sha
    page = get(hub, f"/{repo}").text
    assert all(f'<img src="/{repo}/resolve/{sha}/{name}.png"' in page for name in "ab")


def test_every_page_has_a_title_of_its_own_and_labels(hub, api, eve, lora):
    number = eve.create_discussion(lora, "A question", description="Why?").num
    sha = api.model_info(lora).sha
    pages = [
        "/models",
        "/datasets",
        "/spaces",
        "/collections",
        "/models?search=dots",
        f"/{lora}",
        f"/{lora}/tree/main",
        f"/{lora}/tree/main/images",
        f"/{lora}/blob/main/README.md",
        f"/{lora}/commits/main",
        f"/{lora}/commit/{sha}",
        f"/{lora}/compare/main..main",
        f"/{lora}/discussions",
        f"/{lora}/discussions/{number}",
        "/login",
        "/logout",
        "/nothing/here",
    ]
    texts = {place: get(hub, place).text for place in pages}
    titles = {re.findall(r"<title>(.*?)</title>", text, re.S)[0] for text in texts.values()}
    assert len(titles) == len(pages)
    for place, text in texts.items():
        assert "<nav>" not in text, place
        assert re.findall(r"<pre(?! tabindex)", text) == [], place


def test_a_code_block_of_a_card_is_reached_by_keyboard(hub, api, repo):
    card = b"# X\n\n```\ncode\n```\n\n`<pre>`\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    page = get(hub, f"/{repo}").text
    assert '<pre tabindex="0"><code>code' in page
    assert "<code>&lt;pre&gt;</code>" in page


def test_signing_in_may_be_given_up_and_undone(hub):
    given_up = get(hub, "/login?next=/datasets")
    assert (given_up.status_code, given_up.headers["www-authenticate"][:5]) == (401, "Basic")
    assert "You are not signed in" in given_up.text
    assert 'href="/datasets"' in given_up.text
    assert 'href="//evil' not in get(hub, "/login?next=//evil.example").text
    signed_in = {"auth": ("me", hub.token), "headers": {"accept": "text/html"}}
    assert 'href="/logout"' in httpx.get(f"{hub.url}/models", **signed_in).text
    out = httpx.get(f"{hub.url}/logout", **signed_in)
    assert (out.status_code, out.headers["www-authenticate"][:5]) == (401, "Basic")
    assert "You are signed out" in out.text


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
    found = get(hub, "/models?search=hidden").text
    assert "hidden" not in found.replace('value="hidden"', "").replace("<title>hidden", "")
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
