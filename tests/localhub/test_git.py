"""The real git and git-lfs against the server: they read, and are told how to write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, hf_hub_download

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


def test_a_push_is_refused_with_one_sentence_that_names_the_ways(hub, api, repo, git, tmp_path):
    clone, before = tmp_path / "clone", api.model_info(repo).sha
    packs = sorted((hub.data_dir / "repos").rglob("*.pack"))
    for token in (None, hub.token):
        shutil.rmtree(clone, ignore_errors=True)
        git("clone", address(hub, repo, token), "clone")
        (clone / "a.txt").write_text("a\n")
        git("add", ".", at=clone)
        git("commit", "-m", "mine", at=clone)
        for what in ("main", ":a/b", "--tags", "HEAD:refs/pr/1"):
            said = git("push", "origin", "main", what, at=clone, fails=True)
            assert "remote: This Hub takes no `git push`: upload with `hf upload" in said
            assert "`hublora push" in said
    assert api.model_info(repo).sha == before
    assert sorted((hub.data_dir / "repos").rglob("*.pack")) == packs
    assert not list((hub.data_dir / "uploads").glob("stage-*"))


@needs_lfs
def test_large_files_come_by_lfs_with_a_clone(hub, api, repo, git, tmp_path):
    weights = os.urandom(200_000)
    api.upload_file(path_or_fileobj=weights, path_in_repo="w.safetensors", repo_id=repo)
    git("clone", address(hub, repo), "clone")
    assert (tmp_path / "clone" / "w.safetensors").read_bytes() == weights
    assert git("status", "--porcelain", at=tmp_path / "clone") == ""


@needs_lfs
def test_a_private_repo_opens_to_its_token_alone(hub, api, eve, git, tmp_path):
    api.create_repo("me/git-secret", private=True, exist_ok=True)
    api.upload_file(path_or_fileobj=b"\0" * 999, path_in_repo="x.bin", repo_id="me/git-secret")
    for token in (None, "hf_wrong", eve.token):
        git("clone", address(hub, "me/git-secret", token), "no", fails=True)
    git("clone", address(hub, "me/git-secret", hub.token), "yes")
    assert (tmp_path / "yes" / "x.bin").read_bytes() == b"\0" * 999
    api.delete_repo("me/git-secret")


def test_datasets_are_cloned_under_their_prefix(hub, api, git, tmp_path):
    api.create_repo("me/git-data", repo_type="dataset", exist_ok=True)
    git("clone", address(hub, "me/git-data", prefix="datasets/"), "clone")
    assert (tmp_path / "clone" / ".gitattributes").exists()
    api.delete_repo("me/git-data", repo_type="dataset")


ODD_NAMES = (
    "notes.txt",
    "a b/c d.json",
    'we"ird.md',
    "st*r.txt",
    "[x]?.txt",
    "#h.c",
    "!n.c",
    "ü/ç.c",
)


def test_large_files_of_any_name_get_their_line_of_gitattributes(api, repo, git, tmp_path):
    content = b"\0 large because of its bytes"

    def put(**files: bytes) -> list[str]:
        operations = [CommitOperationAdd(name, data) for name, data in files.items()]
        api.create_commit(repo, operations, commit_message="odd")
        told = hf_hub_download(repo, ".gitattributes", endpoint=api.endpoint, token=False)
        return Path(told).read_text().splitlines()

    lines = put(**dict.fromkeys((*ODD_NAMES, "x.bin"), content), **{"x.txt": b"small"})
    git("init", "-q", "clone")
    (tmp_path / "clone" / ".gitattributes").write_text("\n".join(lines))
    others = ["x.txt", "sub/notes.txt", "star.txt", "xx.txt"]
    asked = "\0".join([*ODD_NAMES, *others])
    said = subprocess.run(
        ["git", "check-attr", "-z", "--stdin", "filter"],
        cwd=tmp_path / "clone",
        input=asked.encode(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    words = said.split("\0")
    found = dict(zip(words[::3], words[2::3], strict=False))
    assert {name for name, value in found.items() if value == "lfs"} == set(ODD_NAMES)
    # What is told already, by a line of its own or by its kind, is not told again.
    assert put(**{"notes.txt": content + b"2", "new.bin": content}) == lines


@needs_lfs
def test_text_over_10_mb_is_itself_after_a_clone(hub, api, repo, git, tmp_path):
    text = b"a line of a long text\n" * 600_000
    api.upload_file(path_or_fileobj=text, path_in_repo="corpus/all.txt", repo_id=repo)
    git("clone", address(hub, repo), "clone")
    assert (tmp_path / "clone" / "corpus" / "all.txt").read_bytes() == text
    assert git("status", "--porcelain", at=tmp_path / "clone") == ""
