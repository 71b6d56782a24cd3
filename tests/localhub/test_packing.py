"""Packs are joined before they are many, and nothing gets lost on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hublora.localhub.store import Store, packing
from hublora.localhub.store.operations import PutFile
from hublora.localhub.store.writing import signature


def commit(store: Store, name: str) -> str:
    """Make one commit of one file."""
    repo = store.repos.find("model", "me/x")
    with store.commits.stage(repo) as stage:
        operations = [PutFile(f"{name}.txt", stage.blob(name.encode()))]
        return store.commits.apply(repo, stage, operations, name, signature("me"))


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_many_commits_leave_few_packs_and_a_sound_repository(tmp_path: Path):
    store = Store(tmp_path)
    store.first_user("me")
    repo = store.create_repo("model", "me", "x")
    folder = store.git(repo).folder
    packs = folder / "objects" / "pack"
    for i in range(packing.JOIN_FROM + 5):
        commit(store, f"first-{i}")
    # The old packs stay for a while, beside the one that holds all of theirs.
    superseded = (packs / "superseded").read_text().split()
    assert len(superseded) >= packing.JOIN_FROM - 1
    os.utime(packs / "superseded", (0, 0))
    for i in range(3):
        commit(store, f"second-{i}")
    assert len(list(packs.glob("*.pack"))) < packing.JOIN_FROM
    assert not (packs / superseded[0]).with_suffix(".pack").exists()
    git = store.git(repo)
    assert len(git.files(git.resolve("main"))) == packing.JOIN_FROM + 5 + 3 + 1
    subprocess.run(["git", "-C", folder, "fsck", "--full", "--strict"], check=True)
    assert not list((tmp_path / "uploads").iterdir())
