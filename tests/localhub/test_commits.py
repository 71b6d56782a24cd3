"""Committing through the real client: what goes in comes out, and conflicts are told."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
)
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError


def read(api: HfApi, repo: str, path: str, tmp_path: Path, **where: str) -> bytes:
    """Download one file with a cache of its own."""
    local = hf_hub_download(
        repo, path, endpoint=api.endpoint, token=api.token, cache_dir=tmp_path / "cache", **where
    )
    return Path(local).read_bytes()


def test_regular_and_large_files_come_back_as_they_went(api, repo, tmp_path):
    small, large = b"a small text\n", os.urandom(300_000)
    api.upload_file(path_or_fileobj=small, path_in_repo="a/small.txt", repo_id=repo)
    api.upload_file(path_or_fileobj=large, path_in_repo="a/large.safetensors", repo_id=repo)
    assert read(api, repo, "a/small.txt", tmp_path) == small
    assert read(api, repo, "a/large.safetensors", tmp_path) == large
    info = {f.path: f for f in api.list_repo_tree(repo, recursive=True)}
    assert info["a/large.safetensors"].lfs.size == 300_000
    assert getattr(info["a/small.txt"], "lfs", None) is None


def test_a_file_larger_than_a_part_goes_in_parts(api, repo, tmp_path):
    content = os.urandom(3 * (1 << 20) + 17)
    api.upload_file(path_or_fileobj=content, path_in_repo="big.bin", repo_id=repo)
    assert read(api, repo, "big.bin", tmp_path) == content


def test_an_empty_file_is_a_file(api, repo, tmp_path):
    api.upload_file(path_or_fileobj=b"", path_in_repo="empty.bin", repo_id=repo)
    assert read(api, repo, "empty.bin", tmp_path) == b""


def test_add_copy_and_delete_make_one_commit(api, repo, tmp_path):
    api.create_commit(
        repo,
        [
            CommitOperationAdd("keep.txt", b"keep"),
            CommitOperationAdd("gone.txt", b"gone"),
            CommitOperationAdd("folder/a.bin", os.urandom(5000)),
        ],
        commit_message="first",
    )
    api.create_commit(
        repo,
        [
            CommitOperationCopy("folder/a.bin", "copy.bin"),
            CommitOperationCopy("keep.txt", "kept.txt"),
            CommitOperationDelete("gone.txt"),
            CommitOperationDelete("folder/"),
        ],
        commit_message="second",
        commit_description="with words",
    )
    assert sorted(api.list_repo_files(repo)) == [
        ".gitattributes",
        "copy.bin",
        "keep.txt",
        "kept.txt",
    ]
    newest = api.list_repo_commits(repo)[0]
    assert (newest.title, newest.message, newest.authors) == ("second", "with words", ["me"])


def test_deleting_what_is_not_there_is_told_by_name(api, repo):
    with pytest.raises(HfHubHTTPError, match="A file with this name doesn't exist"):
        api.delete_file("nothing.txt", repo)


def test_a_stale_parent_commit_is_refused_with_412(api, repo):
    old = api.model_info(repo).sha
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=repo, parent_commit=old)
    with pytest.raises(HfHubHTTPError) as refusal:
        api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=repo, parent_commit=old)
    assert refusal.value.response.status_code == 412


def test_unchanged_files_make_no_commit(api, repo, tmp_path):
    (tmp_path / "a.txt").write_text("same")
    (tmp_path / "b.bin").write_bytes(b"\0" * 2000)
    first = api.upload_folder(folder_path=tmp_path, repo_id=repo)
    assert api.upload_folder(folder_path=tmp_path, repo_id=repo).oid == first.oid


def test_a_commit_to_a_commit_id_or_a_tag_is_refused(api, repo):
    api.create_tag(repo, tag="v1")
    for place in ("v1", api.model_info(repo).sha, "nowhere"):
        with pytest.raises(RevisionNotFoundError):
            api.upload_file(path_or_fileobj=b"", path_in_repo="x", repo_id=repo, revision=place)


def test_a_large_file_that_never_arrived_is_refused(api, repo):
    from huggingface_hub.utils import get_session

    lines = (
        '{"key": "header", "value": {"summary": "claim"}}\n'
        '{"key": "lfsFile", "value": {"path": "x.bin", "algo": "sha256", "oid": "%s", "size": 3}}\n'
        % ("a" * 64)
    )
    answer = get_session().post(
        f"{api.endpoint}/api/models/{repo}/commit/main",
        content=lines.encode(),
        headers={"authorization": f"Bearer {api.token}", "content-type": "application/x-ndjson"},
    )
    assert answer.status_code == 400
    assert "does not exist" in answer.json()["error"]


def test_a_broken_card_is_refused_before_it_is_committed(api, repo):
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(
            path_or_fileobj=b"---\ntags: [lora\n---\n", path_in_repo="README.md", repo_id=repo
        )


def test_gitignore_is_honoured_by_upload_folder(api, repo, tmp_path):
    (tmp_path / ".gitignore").write_text("*.log\nsecret/\n!keep.log\n")
    (tmp_path / "secret").mkdir()
    for name in ("a.log", "keep.log", "a.txt", "secret/b.txt"):
        (tmp_path / name).write_text(name)
    api.upload_folder(folder_path=tmp_path, repo_id=repo)
    assert sorted(api.list_repo_files(repo)) == [
        ".gitattributes",
        ".gitignore",
        "a.txt",
        "keep.log",
    ]


def test_file_objects_and_many_small_files_upload(api, repo):
    operations = [CommitOperationAdd(f"many/{i:03d}.txt", f"{i}".encode()) for i in range(300)]
    operations.append(CommitOperationAdd("buffer.bin", io.BytesIO(os.urandom(4000))))
    api.create_commit(repo, operations, commit_message="many")
    assert len(api.list_repo_files(repo)) == 302


def test_a_bad_path_is_refused(api, repo):
    with pytest.raises(HfHubHTTPError, match="Invalid path"):
        api.upload_file(path_or_fileobj=b"", path_in_repo="a/.GIT/config", repo_id=repo)
