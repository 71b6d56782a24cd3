"""Patterns of `.gitignore` and `.gitattributes` mean here what they mean to git."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hublora.localhub.store.patterns import Attributes, Ignore, default_attributes

PIECES = st.sampled_from(
    ["a", "b", "A", "*", "**", "/", "?", "[ab]", "[!a]", "[a-c]", "[^b]", ".", "é", "\\*", "\\a"]
)
LINES = st.lists(
    st.tuples(st.sampled_from(["", "", "", "!"]), st.lists(PIECES, min_size=1, max_size=6)).map(
        lambda line: line[0] + "".join(line[1])
    ),
    min_size=1,
    max_size=4,
)
PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "ab", "A", ".", "é", "*"]), min_size=1, max_size=3)
    .map("".join)
    .filter(lambda name: name.strip(".")),
    min_size=1,
    max_size=4,
).map("/".join)
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository that git is asked in."""
    made = tmp_path_factory.mktemp("patterns")
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


def git(folder: Path, *command: str, paths: list[str]) -> list[str]:
    """Ask git about paths; return its answers, which are all lines that end in NUL."""
    done = subprocess.run(
        ["git", "-c", "core.excludesFile=", *command],
        cwd=folder,
        input="".join(f"{path}\0" for path in paths).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.decode().split("\0")[:-1]


@needs_git
@given(LINES, st.lists(PATHS, min_size=1, max_size=8))
@example(["build/", "!build/x"], ["build/x", "a/build/y", "build"])
@example(["a/**/b", "**/c", "d/**"], ["a/b", "a/a/a/b", "x/c", "d/x", "d", "x/d/x"])
@example(["/a", "b/", "[", "a\\"], ["a", "x/a", "b", "x/b/c", "["])
@example(["a\\ ", "b  ", "\\#c", "\\!d"], ["a ", "a", "b", "#c", "!d"])
@settings(max_examples=150)
def test_what_is_ignored_is_what_git_ignores(folder, lines, paths):
    (folder / ".gitignore").write_text("\n".join(lines) + "\n")
    said = git(folder, "check-ignore", "--no-index", "-z", "--stdin", paths=paths)
    ignore = Ignore("\n".join(lines))
    assert {path for path in paths if ignore.ignores(path)} == set(said)


@needs_git
@given(LINES, st.lists(PATHS, min_size=1, max_size=8))
@example(["*.bin", "a/**/b"], ["x.bin", "d/x.bin", "a/b", "a/a/b"])
@settings(max_examples=100)
def test_what_is_large_is_what_git_keeps_in_lfs(folder, lines, paths):
    rules = [line for line in lines if not line.startswith("!")]
    text = "".join(
        f"{line} {'filter=lfs -text' if number % 2 == 0 else '-filter'}\n"
        for number, line in enumerate(rules)
    )
    (folder / ".gitattributes").write_text(text)
    said = git(folder, "check-attr", "-z", "--stdin", "filter", paths=paths)
    large = {path for path, value in zip(said[::3], said[2::3], strict=True) if value == "lfs"}
    assert {path for path in paths if Attributes(text).is_large(path)} == large


def test_a_new_repo_keeps_weights_and_a_datasets_media_as_large_files():
    model, dataset = (
        Attributes(default_attributes(kind).decode()) for kind in ("model", "dataset")
    )
    for path in ("a.bin", "x/a.safetensors", "saved_model/a/b", "a.tar.gz", "run.tfevents.1"):
        assert model.is_large(path)
        assert dataset.is_large(path)
    for path in ("README.md", "a.txt", "saved_model.txt"):
        assert not dataset.is_large(path)
    assert dataset.is_large("a.png")
    assert not model.is_large("a.png")


@pytest.mark.parametrize("text", ["*a" * 500, "[a-z]*" * 160, "?*" * 500, "(a+)+$", "**/" * 300])
def test_no_pattern_makes_a_match_slow(text):
    # A backtracking matcher needs longer than this run has for the first of them alone.
    ignore = Ignore("\n".join([text + "x"] * 30))
    for number in range(20):
        assert not ignore.ignores("a" * 900 + f"/{number}" * 20 + "!")


def test_many_spaces_are_no_work():
    assert not Ignore(" " * 60_000 + "x").ignores("x")
    assert Ignore("x" + " " * 60_000).ignores("x")
