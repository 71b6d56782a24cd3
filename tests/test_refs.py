"""Refs: what parses, what does not and says why, and that they render back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hublora.errors import RefError
from hublora.refs import AdapterRef, BaseRef, RepoId, parse_refs, parse_repo_id, parse_revision

SHA = "0123456789abcdef0123456789abcdef01234567"

# text -> kind, location, revision, path, weight
RIGHT = {
    "user/name": ("repo", "user/name", None, None, 1.0),
    "  user/name  ": ("repo", "user/name", None, None, 1.0),
    "user/name:0.8": ("repo", "user/name", None, None, 0.8),
    "user/name:-0.5": ("repo", "user/name", None, None, -0.5),
    "user/name:.5": ("repo", "user/name", None, None, 0.5),
    "user/name:2": ("repo", "user/name", None, None, 2.0),
    "user/name:1e-5": ("repo", "user/name", None, None, 1e-5),
    "user/name@v1.0:0.8": ("repo", "user/name", "v1.0", None, 0.8),
    f"user/name@{SHA}": ("repo", "user/name", SHA, None, 1.0),
    "user/name/a.safetensors": ("repo", "user/name", None, "a.safetensors", 1.0),
    "user/name@dev/sub/a.safetensors:0.8": ("repo", "user/name", "dev", "sub/a.safetensors", 0.8),
    "user/name@refs/pr/1": ("repo", "user/name", "refs/pr/1", None, 1.0),
    "user/name@refs%2Fpr%2F1/a.safetensors": (
        "repo",
        "user/name",
        "refs/pr/1",
        "a.safetensors",
        1.0,
    ),
    "user/name@refs/pr/12/sub/a.safetensors:2": (
        "repo",
        "user/name",
        "refs/pr/12",
        "sub/a.safetensors",
        2.0,
    ),
    "user/name@feature%2Fx/a.safetensors": ("repo", "user/name", "feature/x", "a.safetensors", 1.0),
    "user/name/sub/": ("repo", "user/name", None, "sub", 1.0),
    "user/name/a%3Ab%7Cc%25.safetensors": ("repo", "user/name", None, "a:b|c%.safetensors", 1.0),
    "user/name/two words.safetensors": ("repo", "user/name", None, "two words.safetensors", 1.0),
    "hf://user/name@main:0.8": ("repo", "user/name", "main", None, 0.8),
    "https://huggingface.co/user/name": ("repo", "user/name", None, None, 1.0),
    "https://huggingface.co/user/name/:0.8": ("repo", "user/name", None, None, 0.8),
    "https://hf.co/user/name:0.8": ("repo", "user/name", None, None, 0.8),
    "https://huggingface.co/user/name/tree/dev": ("repo", "user/name", "dev", None, 1.0),
    "https://huggingface.co/user/name/tree/refs%2Fpr%2F1": (
        "repo",
        "user/name",
        "refs/pr/1",
        None,
        1.0,
    ),
    "https://huggingface.co/user/name/blob/main/sub/a.safetensors": (
        "repo",
        "user/name",
        "main",
        "sub/a.safetensors",
        1.0,
    ),
    "https://huggingface.co/user/name/resolve/main/a%20b.safetensors?download=true:0.4": (
        "repo",
        "user/name",
        "main",
        "a b.safetensors",
        0.4,
    ),
    "https://example.org:8443/a.safetensors:0.5": (
        "url",
        "https://example.org:8443/a.safetensors",
        None,
        None,
        0.5,
    ),
    "https://civitai.com/api/download/models/128713:0.7": (
        "url",
        "https://civitai.com/api/download/models/128713",
        None,
        None,
        0.7,
    ),
    "https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor": (
        "url",
        "https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor",
        None,
        None,
        1.0,
    ),
    "./a.safetensors": ("local", "./a.safetensors", None, None, 1.0),
    "/tmp/run:0.5": ("local", "/tmp/run", None, None, 0.5),
    "~/a.safetensors:-1.5": ("local", "~/a.safetensors", None, None, -1.5),
    "C:\\loras\\a.safetensors": ("local", "C:\\loras\\a.safetensors", None, None, 1.0),
    "C:\\loras\\a.safetensors:0.5": ("local", "C:\\loras\\a.safetensors", None, None, 0.5),
    "D:/loras": ("local", "D:/loras", None, None, 1.0),
}

# text -> a word that the message must have
WRONG = {
    "": "empty",
    "   ": "empty",
    "name": "not an adapter ref",
    "user/": "not an adapter ref",
    "user//name": "not an adapter ref",
    "us er/name": "not an adapter ref",
    "user/name@": "not an adapter ref",
    "-user/name": "not an adapter ref",
    "user/na--me": "owner/name",
    "user/na..me": "owner/name",
    "user/name.git": "owner/name",
    f"user/{'n' * 200}": "not an adapter ref",
    "n" * 5000: "not an adapter ref",
    "user/na\0me": "not an adapter ref",
    "user/name:strong": "'strong' in 'user/name:strong' is not a number",
    "user/name:": "not a number",
    "user/name:0,8": "not a number",
    "user/name:nan": "not a number",
    "user/name:inf": "not a number",
    "user/name:1e400": "between -1000 and 1000, got",
    "user/name:-1e30": "between -1000 and 1000, got",
    "user/name:٣": "not a number",
    "user/name@-rf": "revision",
    "user/name@..": "revision",
    "user/name@a b": "revision",
    "pokemon-lora": "Name its owner, too: OWNER/pokemon-lora.",
    "user/name@.hidden": "revision",
    "user/name@main.lock": "revision",
    "user/name@%2e%2e%2f%2e%2e%2fetc": "revision",
    "user/name/../../etc/passwd": "leaves the repo",
    "user/name/%2e%2e/a.safetensors": "leaves the repo",
    "user/name//a.safetensors": "leaves the repo",
    "user/name/./a.safetensors": "leaves the repo",
    "user/name/sub\\a.safetensors": "leaves the repo",
    "user/name/a.bin": "pickle",
    "user/name/sub/a.ckpt:0.5": "pickle",
    "https://huggingface.co/user/name/discussions/1": "Write user/name",
    "https://huggingface.co/datasets/user/name": "page of a dataset",
    "https://huggingface.co/spaces/user/name": "page of a space",
    "https://huggingface.co": "not the page of a repo",
    "https://example.org/a.bin": "safetensors",
    "https://example.org/a": "safetensors",
    "http://example.org/a.safetensors": "https",
    "https:///a.safetensors": "not a URL",
    "https://civitai.com/models/1?modelVersionId=78": "Write https://civitai.com/api/download/models/78",
    "https://civitai.com/models/1": "from the page's Download button",
    "http://civitai.com/api/download/models/1": "https",
    "https://example.org/api/download/models/1": "safetensors",
    "https://[::1/a.safetensors": "not a URL",
    "https://me:secret@example.org/a.safetensors": "password",
}


@pytest.mark.parametrize("text", RIGHT)
def test_a_right_ref_parses(text: str) -> None:
    ref = AdapterRef.parse(text)
    assert (ref.kind, ref.location, ref.revision, ref.path, ref.weight) == RIGHT[text]


@pytest.mark.parametrize("text", RIGHT)
def test_a_ref_renders_back(text: str) -> None:
    ref = AdapterRef.parse(text)
    assert AdapterRef.parse(str(ref)) == ref
    pinned = ref.at(SHA, "sub/a.safetensors") if ref.kind == "repo" else ref
    assert AdapterRef.parse(str(pinned)) == pinned


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_ref_says_what_is_wrong_and_what_is_right(text: str) -> None:
    with pytest.raises(RefError) as caught:
        AdapterRef.parse(text)
    assert WRONG[text] in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("given", [None, 5, b"user/name", [None], ["user/name", 5]])
def test_what_is_no_text_is_named(given: Any) -> None:
    with pytest.raises(RefError, match="is not an adapter ref") as caught:
        parse_refs(given)
    wrong = given[-1] if isinstance(given, list) else given
    assert repr(wrong) in caught.value.message


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(RefError) as caught:
        AdapterRef.parse("https://me:secret@example.org/a.safetensors")
    assert "secret" not in str(caught.value)


def test_a_public_ref_leaves_out_what_a_query_may_hide() -> None:
    ref = AdapterRef.parse("https://example.org/a.safetensors?signature=secret:0.5")
    assert ref.location.endswith("?signature=secret")
    assert ref.public == "https://example.org/a.safetensors"


def test_pages_of_the_hub_in_use_are_repos(hub: object) -> None:
    page = f"{os.environ['HF_ENDPOINT']}/me/name/blob/v2/a.safetensors:0.5"
    assert AdapterRef.parse(page) == AdapterRef("repo", "me/name", "v2", "a.safetensors", 0.5)


def test_refs_come_one_by_one_or_joined() -> None:
    joined = parse_refs("user/a:0.7|user/b@v1 | user/c")
    assert [str(ref) for ref in joined] == ["user/a:0.7", "user/b@v1", "user/c"]
    assert parse_refs(["user/a:0.7", "user/b@v1|user/c"]) == joined
    with pytest.raises(RefError, match=r"empty"):
        parse_refs("user/a|")


def test_a_bare_file_name_is_local_when_the_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefError):
        AdapterRef.parse("ink.safetensors")
    (tmp_path / "ink.safetensors").touch()
    assert AdapterRef.parse("ink.safetensors:0.5") == AdapterRef(
        "local", "ink.safetensors", weight=0.5
    )


def test_a_folder_comes_before_a_repo_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert AdapterRef.parse("runs/x").kind == "repo"
    (tmp_path / "runs" / "x").mkdir(parents=True)
    assert AdapterRef.parse("runs/x:0.5") == AdapterRef("local", "runs/x", weight=0.5)
    assert AdapterRef.parse("runs/x").hidden_repo == "hf://runs/x"
    for repo in ("hf://runs/x", "runs/x@main", "https://huggingface.co/runs/x"):
        assert AdapterRef.parse(repo).kind == "repo"
        assert AdapterRef.parse(repo).hidden_repo is None
    assert AdapterRef.parse("./runs/x").hidden_repo is None


@pytest.mark.parametrize("wrong", ["name", "a/b/c", "a/b@main", "a/b.git", "a/-b", "a/b\n", "../b"])
def test_a_repo_id_is_owner_and_name(wrong: str) -> None:
    assert parse_repo_id("user/na-me_1.0") == "user/na-me_1.0"
    with pytest.raises(RefError, match=r"owner/name"):
        parse_repo_id(wrong)


@pytest.mark.parametrize(
    "wrong", ["", "a b", "a..b", "/a", "a/", "-a", "a\n", "a~1", "a:b", "a/.b"]
)
def test_a_revision_is_what_git_allows(wrong: str) -> None:
    for right in ("main", "v1.0", "refs/pr/1", "feature/x", SHA):
        assert parse_revision(right) == right
    with pytest.raises(RefError, match=r"revision"):
        parse_revision(wrong)


def test_a_path_is_a_local_file_or_folder(tmp_path: Path) -> None:
    assert AdapterRef.parse(Path("me/x:0.5")) == AdapterRef("local", "me/x:0.5")
    assert parse_refs(tmp_path) == [AdapterRef("local", str(tmp_path))]
    assert parse_refs(["me/a:0.5", tmp_path])[1].kind == "local"


def test_a_base_is_a_repo_at_a_revision_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BaseRef.parse("me/base") == BaseRef(RepoId("me/base"))
    assert BaseRef.parse("me/base", "v1").revision == "v1"
    assert BaseRef.parse("./me/base") == BaseRef(None, Path("me/base"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "base").mkdir(parents=True)
    assert BaseRef.parse("me/base").folder == Path("me/base"), "a folder that exists comes first"
    assert BaseRef.parse("me/base").name == "base"
    for wrong, revision in (
        ("", None),
        (" ", None),
        ("x", None),
        ("me/b@v1", None),
        ("me/b", ".."),
    ):
        with pytest.raises(RefError):
            BaseRef.parse(wrong, revision)
