"""Reading: resolve, info, tree, paths, lists."""

from __future__ import annotations

import itertools
import os

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hublora.localhub.store import Store

CARD = b"""---
license: creativeml-openrail-m
base_model: hublora/tiny-sd
base_model_relation: adapter
library_name: diffusers
pipeline_tag: text-to-image
datasets: [me/images]
tags: [lora, template:sd-lora]
date: 2026-11-21
---
# A card
"""


@pytest.fixture
def filled(api, repo):
    api.create_commit(
        repo,
        [
            CommitOperationAdd("README.md", CARD),
            CommitOperationAdd("lora.safetensors", os.urandom(9000)),
            CommitOperationAdd("images/0.png", b"\x89PNG\0" + os.urandom(100)),
            CommitOperationAdd("images/words.txt", b"hello"),
        ],
        commit_message="fill",
    )
    return repo


def test_info_has_card_tags_and_files(api, filled):
    info = api.model_info(filled, files_metadata=True)
    assert info.card_data.base_model == "hublora/tiny-sd"
    assert info.pipeline_tag == "text-to-image"
    assert info.library_name == "diffusers"
    assert {
        "lora",
        "base_model:hublora/tiny-sd",
        "base_model:adapter:hublora/tiny-sd",
        "dataset:me/images",
        "license:creativeml-openrail-m",
        "safetensors",
        "text-to-image",
    } <= set(info.tags)
    sizes = {s.rfilename: s.size for s in info.siblings}
    assert sizes["lora.safetensors"] == 9000
    assert next(s for s in info.siblings if s.rfilename == "lora.safetensors").lfs.size == 9000


def test_expand_returns_only_what_was_asked_for(api, filled):
    info = api.model_info(filled, expand=["sha", "downloads"])
    assert info.sha
    assert info.downloads == 0
    assert info.tags is None


def test_info_of_an_old_revision_tells_of_that_revision(api, filled):
    old = api.list_repo_commits(filled)[-1].commit_id
    info = api.model_info(filled, revision=old)
    assert info.sha == old
    assert [s.rfilename for s in info.siblings] == [".gitattributes"]
    assert "lora" not in info.tags


def test_head_and_get_agree_and_name_the_commit(api, filled):
    for name in ("README.md", "lora.safetensors"):
        url = hf_hub_url(filled, name, endpoint=api.endpoint)
        head, get = httpx.head(url), httpx.get(url)
        same = ("etag", "content-length", "x-repo-commit", "accept-ranges", "x-linked-etag")
        assert {k: head.headers.get(k) for k in same} == {k: get.headers.get(k) for k in same}
        assert head.headers["x-repo-commit"] == api.model_info(filled).sha
        assert len(get.content) == int(head.headers["content-length"])
        assert get_hf_file_metadata(url, token=api.token).size == len(get.content)


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-99", 206, slice(0, 100)),
        ("bytes=8990-", 206, slice(8990, 9000)),
        ("bytes=-10", 206, slice(8990, 9000)),
        ("bytes=8990-99999", 206, slice(8990, 9000)),
        ("bytes=9000-", 416, None),
        ("bytes=nonsense", 200, slice(0, 9000)),
    ],
)
def test_ranges_are_those_of_rfc_9110(api, filled, asked, status, span):
    url = hf_hub_url(filled, "lora.safetensors", endpoint=api.endpoint)
    whole = httpx.get(url).content
    part = httpx.get(url, headers={"range": asked})
    assert part.status_code == status
    if span:
        assert part.content == whole[span]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 200),
        ({"range": "bytes=5-9"}, 206),
        ({"range": "bytes=9999999-"}, 416),
        ({"range": "bytes=0-1,4-5"}, 200),  # several ranges: the whole, as RFC 9110 allows
        ({"range": "bytes=5-9", "if-range": "ETAG"}, 206),
        ({"range": "bytes=5-9", "if-range": '"another"'}, 200),
        ({"if-none-match": "ETAG"}, 304),
        ({"if-none-match": 'W/ETAG, "another"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"another"'}, 200),
        ({"range": "bytes=5-9", "if-none-match": "ETAG"}, 304),
    ],
)
@pytest.mark.parametrize("name", ["README.md", "lora.safetensors"])
def test_head_answers_as_get_does_to_ranges_and_conditions(api, filled, name, asked, status):
    url = hf_hub_url(filled, name, endpoint=api.endpoint)
    etag = httpx.head(url).headers["etag"]
    asked = {key: value.replace("ETAG", etag) for key, value in asked.items()}
    head, get = (httpx.request(method, url, headers=asked) for method in ("HEAD", "GET"))
    assert head.status_code == get.status_code == status
    own = ("date", "x-request-id")
    told = [{k: v for k, v in answer.headers.items() if k not in own} for answer in (head, get)]
    assert told[0] == told[1]
    assert head.content == b""
    if status != 304:
        assert int(get.headers["content-length"]) == len(get.content)


def test_an_unchanged_file_answers_304(api, filled):
    url = hf_hub_url(filled, "lora.safetensors", endpoint=api.endpoint)
    etag = httpx.head(url).headers["etag"]
    again = httpx.get(url, headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")


def test_what_is_missing_is_told_apart(api, filled, tmp_path):
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(filled, "nothing.txt", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(filled, "README.md", revision="nothing", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("me/nothing", "README.md", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("gpt2")
    missing = httpx.head(hf_hub_url(filled, "nothing.txt", endpoint=api.endpoint))
    assert missing.headers["x-repo-commit"] == api.model_info(filled).sha


def test_trees_and_paths_tell_sizes_and_last_commits(api, filled):
    tree = {e.path: e for e in api.list_repo_tree(filled, recursive=True, expand=True)}
    assert set(tree) == {
        ".gitattributes",
        "README.md",
        "images",
        "images/0.png",
        "images/words.txt",
        "lora.safetensors",
    }
    assert tree["lora.safetensors"].last_commit.title == "fill"
    # It got a line for images/0.png, which is large because of its bytes alone.
    assert tree[".gitattributes"].last_commit.title == "fill"
    below = [e.path for e in api.list_repo_tree(filled, "images")]
    assert below == ["images/0.png", "images/words.txt"]
    found = api.get_paths_info(filled, ["images", "README.md", "nothing"], expand=True)
    assert [e.path for e in found] == ["images", "README.md"]


def test_a_long_tree_comes_in_pages(api, repo):
    many = [CommitOperationAdd(f"f/{i:04d}.txt", b"x") for i in range(1200)]
    api.create_commit(repo, many, commit_message="many")
    assert len(list(api.list_repo_tree(repo, "f"))) == 1200


def test_a_snapshot_is_the_whole_repo(api, filled, tmp_path):
    folder = snapshot_download(filled, endpoint=api.endpoint, token=api.token, cache_dir=tmp_path)
    found = {
        os.path.relpath(os.path.join(d, f), folder) for d, _, fs in os.walk(folder) for f in fs
    }
    assert "images/0.png" in found
    assert len(found) == 5


def test_a_repo_counts_once_however_many_files_are_fetched(tmp_path):
    store = Store(tmp_path)
    store.first_user("me")
    fetched = {"model": ["config.json", "a.bin", "b/config.json"], "dataset": ["0.png", "1.png"]}
    for kind, paths in fetched.items():
        repo = store.repos.create(kind, kind, "me", "x", False, None)
        for client, path in itertools.product(("10.0.0.1", "10.0.0.2"), paths):
            store.downloads.count(repo, path, client)
    store.downloads.flush()
    assert [repo.downloads for repo in store.repos.all()] == [2, 2]


def test_lists_filter_sort_and_page(api, repo):
    names = [f"me/list-{i}" for i in range(5)]
    for i, name in enumerate(names):
        api.create_repo(name)
        tags = f"---\ntags: [lora, t{i % 2}]\npipeline_tag: text-to-image\n---\n".encode()
        api.upload_file(path_or_fileobj=tags, path_in_repo="README.md", repo_id=name)
    found = [m.id for m in api.list_models(author="me", search="list-", sort="last_modified")]
    assert found == names[::-1]
    assert {m.id for m in api.list_models(filter=["lora", "t1"])} >= {names[1], names[3]}
    assert names[0] not in {m.id for m in api.list_models(filter="t1")}
    assert [m.id for m in api.list_models(search="list-", limit=2)] == names[:-3:-1]
    assert len(list(api.list_models(search="list-", pipeline_tag="text-to-image"))) == 5
    pages, url = [], f"{api.endpoint}/api/models?search=list-&limit=2"
    while url:
        page = httpx.get(url)
        pages.append([m["id"] for m in page.json()])
        url = page.links.get("next", {}).get("url")
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [name for page in pages for name in page] == names[::-1]
    for name in names:
        api.delete_repo(name)
