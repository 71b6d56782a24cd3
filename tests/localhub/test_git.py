"""The real git and git-lfs against the server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hublora.localhub import create_token

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
needs_lfs = pytest.mark.skipif(not shutil.which("git-lfs"), reason="git-lfs is not installed")

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Run git with a home of its own; `fails=True` expects it to refuse."""
    home = tmp_path / "home"
    home.mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
    }

    def run(*command: str, at: Path | None = None, fails: bool = False) -> str:
        done = subprocess.run(
            ["git", *command],
            cwd=at or tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    if shutil.which("git-lfs"):
        run("lfs", "install")
    return run


def address(hub, repo: str, token: str | None = None, prefix: str = "") -> str:
    """Return what `git clone` takes, with a token as the password."""
    host = hub.url.removeprefix("http://")
    who = f"user:{token}@" if token else ""
    return f"http://{who}{host}/{prefix}{repo}"


def test_a_public_repo_is_cloned_without_a_token_and_is_sound(hub, api, repo, git, tmp_path):
    for i in range(3):
        api.upload_file(path_or_fileobj=b"x" * i, path_in_repo=f"d/{i}.txt", repo_id=repo)
    api.create_tag(repo, tag="v1", tag_message="first")
    git("clone", address(hub, repo), "clone")
    assert (tmp_path / "clone" / "d" / "2.txt").read_text() == "xx"
    git("fsck", "--full", "--strict", at=tmp_path / "clone")
    assert (
        git("log", "--format=%H", "-1", at=tmp_path / "clone").strip() == api.model_info(repo).sha
    )
    assert git("tag", at=tmp_path / "clone").strip() == "v1"


def test_pull_brings_only_what_is_new(hub, api, repo, git, tmp_path):
    git("clone", address(hub, repo), "clone")
    api.upload_file(path_or_fileobj=b"new", path_in_repo="new.txt", repo_id=repo)
    api.create_branch(repo, branch="try")
    git("pull", at=tmp_path / "clone")
    assert (tmp_path / "clone" / "new.txt").read_text() == "new"
    assert "origin/try" in git("branch", "-r", at=tmp_path / "clone")
    git("fsck", "--full", at=tmp_path / "clone")


def test_a_shallow_clone_can_be_deepened(hub, api, repo, git, tmp_path):
    for i in range(4):
        api.upload_file(path_or_fileobj=f"{i}".encode(), path_in_repo="a.txt", repo_id=repo)
    git("clone", "--depth", "1", address(hub, repo), "clone")
    count = ("rev-list", "--count", "HEAD")
    assert git(*count, at=tmp_path / "clone").strip() == "1"
    git("fetch", "--depth", "3", at=tmp_path / "clone")
    assert git(*count, at=tmp_path / "clone").strip() == "3"
    git("fetch", "--unshallow", at=tmp_path / "clone")
    assert git(*count, at=tmp_path / "clone").strip() == "5"
    git("fsck", "--full", at=tmp_path / "clone")


def test_a_push_is_what_the_api_then_shows(hub, api, repo, git, tmp_path):
    clone = tmp_path / "clone"
    git("clone", address(hub, repo, hub.token), "clone")
    (clone / "README.md").write_text("---\ntags: [pushed]\n---\n# Hi\n")
    for i in range(200):
        (clone / f"{i}.txt").write_text(f"{i}\n" * 50)
    git("add", ".", at=clone)
    git("commit", "-m", "From git", at=clone)
    git("push", at=clone)
    git("tag", "-a", "v2", "-m", "two", at=clone)
    git("push", "--tags", at=clone)
    git("push", "origin", "main:refs/heads/other", at=clone)
    info = api.model_info(repo)
    assert info.sha == git("rev-parse", "HEAD", at=clone).strip()
    assert "pushed" in info.tags
    assert api.list_repo_commits(repo)[0].title == "From git"
    assert api.model_info(repo, revision="v2").sha == info.sha
    (clone / "0.txt").write_text("changed\n")
    git("commit", "-am", "Again", at=clone)
    git("push", at=clone)
    git("push", "origin", ":other", at=clone)
    refs = api.list_repo_refs(repo)
    assert [b.name for b in refs.branches] == ["main"]
    assert "cannot be deleted" in git("push", "origin", ":main", at=clone, fails=True)


def test_a_push_that_is_behind_is_refused(hub, api, repo, git, tmp_path):
    git("clone", address(hub, repo, hub.token), "clone")
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=repo)
    git("commit", "--allow-empty", "-m", "late", at=tmp_path / "clone")
    assert "rejected" in git("push", at=tmp_path / "clone", fails=True)


@needs_lfs
def test_large_files_travel_by_lfs_both_ways(hub, api, repo, git, tmp_path):
    clone, weights = tmp_path / "clone", os.urandom(200_000)
    git("clone", address(hub, repo, hub.token), "clone")
    (clone / "w.safetensors").write_bytes(weights)
    git("add", ".", at=clone)
    git("commit", "-m", "weights", at=clone)
    git("push", at=clone)
    (entry,) = api.get_paths_info(repo, ["w.safetensors"])
    assert entry.lfs.size == 200_000
    api.upload_file(path_or_fileobj=weights[:5000], path_in_repo="b.bin", repo_id=repo)
    git("clone", address(hub, repo), "second")
    assert (tmp_path / "second" / "w.safetensors").read_bytes() == weights
    assert (tmp_path / "second" / "b.bin").read_bytes() == weights[:5000]


@needs_lfs
def test_a_private_repo_opens_to_its_token_alone(hub, api, eve, git, tmp_path):
    api.create_repo("me/git-secret", private=True, exist_ok=True)
    api.upload_file(path_or_fileobj=b"\0" * 999, path_in_repo="x.bin", repo_id="me/git-secret")
    for token in (None, "hf_wrong", eve.token):
        git("clone", address(hub, "me/git-secret", token), "no", fails=True)
    git("clone", address(hub, "me/git-secret", hub.token), "yes")
    assert (tmp_path / "yes" / "x.bin").read_bytes() == b"\0" * 999
    api.delete_repo("me/git-secret")


def test_only_those_who_may_write_push(hub, eve, repo, git, tmp_path):
    reading = create_token(hub.data_dir, "me", "read")
    git("clone", address(hub, repo), "clone")
    git("commit", "--allow-empty", "-m", "mine", at=tmp_path / "clone")
    for token in (None, reading, eve.token):
        git("push", address(hub, repo, token), "main", at=tmp_path / "clone", fails=True)


def test_a_pull_request_is_pushed_by_its_author(hub, api, eve, repo, git, tmp_path):
    opened = eve.create_pull_request(repo, "By git")
    clone = tmp_path / "clone"
    git("clone", address(hub, repo, eve.token), "clone")
    (clone / "a.txt").write_text("a\n")
    git("add", ".", at=clone)
    git("commit", "-m", "hers", at=clone)
    git("push", "origin", f"HEAD:refs/pr/{opened.num}", at=clone)
    assert "a.txt" in api.list_repo_files(repo, revision=f"refs/pr/{opened.num}")
    git("push", "origin", "HEAD:refs/pr/99", at=clone, fails=True)
    git("push", "origin", "HEAD:refs/secret/1", at=clone, fails=True)


def test_dangerous_trees_are_refused_and_leave_no_trace(hub, api, repo, git, tmp_path):
    clone, before = tmp_path / "clone", api.model_info(repo).sha
    git("clone", address(hub, repo, hub.token), "clone")
    packs = sorted((hub.data_dir / "repos").rglob("*.pack"))
    (clone / "link").symlink_to("/etc/passwd")
    git("add", ".", at=clone)
    git("commit", "-m", "link", at=clone)
    assert "symbolic link" in git("push", at=clone, fails=True)
    git("reset", "--hard", "origin/main", at=clone)
    (clone / "big.txt").write_text("x" * (11 << 20))
    git("add", ".", at=clone)
    git("commit", "-m", "big", at=clone)
    assert "Git LFS" in git("push", at=clone, fails=True)
    git("reset", "--hard", "origin/main", at=clone)
    (clone / "p.txt").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 3\n"
    )
    git("add", ".", at=clone)
    git("commit", "-m", "pointer", at=clone)
    assert "is not here" in git("push", at=clone, fails=True)
    assert api.model_info(repo).sha == before
    assert sorted((hub.data_dir / "repos").rglob("*.pack")) == packs
    assert not list((hub.data_dir / "uploads").glob("stage-*"))


def test_datasets_are_cloned_under_their_prefix(hub, api, git, tmp_path):
    api.create_repo("me/git-data", repo_type="dataset", exist_ok=True)
    git("clone", address(hub, "me/git-data", prefix="datasets/"), "clone")
    assert (tmp_path / "clone" / ".gitattributes").exists()
    api.delete_repo("me/git-data", repo_type="dataset")
