"""Which commit changed a path last, as git itself tells it."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from hublora.localhub.store import Store
from hublora.localhub.store.operations import DeleteFile, Operation, PutFile
from hublora.localhub.store.writing import signature

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


def test_every_path_of_a_random_history_has_the_commit_that_git_names(tmp_path: Path):
    store, dice = Store(tmp_path), random.Random(4)
    store.first_user("me")
    repo = store.create_repo("model", "me", "x")
    paths = [f"{a}/{b}/{c}.txt" for a in "xy" for b in "pq" for c in "123"] + ["top", "z/one"]
    present: set[str] = set()
    for number in range(60):
        with store.commits.stage(repo) as stage:
            changed = dice.sample(paths, dice.randint(1, 4))
            operations: list[Operation] = []
            for path in changed:
                if path in present and dice.random() < 0.3:
                    operations.append(DeleteFile(path))
                    present.discard(path)
                else:
                    text = dice.choice([b"same", str(number).encode()])
                    operations.append(PutFile(path, stage.blob(text)))
                    present.add(path)
            store.commits.apply(repo, stage, operations, f"c{number}", signature("me"))
        if number == 30:
            early = store.git(repo).resolve("main")
    git = store.git(repo)
    for commit in (git.resolve("main"), early):
        entries = [entry.path for entry in git.entries(commit, recursive=True)]
        dice.shuffle(entries)
        # In pages, as lists ask: what one page found out must hold for the next.
        found = {}
        for start in range(0, len(entries), 3):
            found |= git.last_commits(commit, entries[start : start + 3])
        for path in entries:
            command = ["git", "-C", git.folder, "log", "-1", "--first-parent", "--format=%H"]
            said = subprocess.run([*command, commit, "--", path], capture_output=True, text=True)
            assert found[path].id == said.stdout.strip(), path
