"""gc and backup beside a Hub in use: nothing gets lost, and a copy is the Hub at one moment."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hublora.localhub.store import Store
from hublora.localhub.store.backup import back_up
from hublora.localhub.store.errors import Conflict
from hublora.localhub.store.operations import PutFile, PutLarge
from hublora.localhub.store.pointers import Pointer
from hublora.localhub.store.writing import signature

ROUNDS, WRITERS = 12, 3


def upload(store: Store, name: str, content: bytes) -> Pointer:
    """Upload a large file; nothing is committed yet."""
    repo, incoming = store.repos.find("model", name), store.large.receive()
    incoming.write(content)
    pointer = Pointer(incoming.digest, incoming.size)
    store.large.keep(repo.id, incoming, pointer)
    return pointer


def commit(store: Store, name: str, path: str, ref: str = "refs/heads/main") -> dict[str, bytes]:
    """Commit a small and a large file; return them."""
    repo, content = store.repos.find("model", name), random.randbytes(5000)
    with store.commits.stage(repo) as stage:
        operations = [
            PutFile(f"{path}.txt", stage.blob(path.encode())),
            PutLarge(f"{path}.bin", upload(store, name, content)),
        ]
        store.commits.apply(repo, stage, operations, path, signature("me"), ref=ref)
    return {f"{path}.txt": path.encode(), f"{path}.bin": content}


def fresh(folder: Path, *names: str) -> Store:
    """Return a store with these repos, each with a commit."""
    store = Store(folder)
    store.first_user("me")
    for name in names:
        store.create_repo("model", "me", name)
        commit(store, f"me/{name}", "first")
    return store


def branches(store: Store, name: str) -> list[str]:
    """Return the branches of a repo."""
    return list(store.git(store.repos.find("model", name)).refs().branches)


def check_whole(store: Store) -> None:
    """Whatever a ref of any repo leads to is there, and so is every large file of its trees."""
    store.recover()
    for repo in store.repos.all():
        git = store.git(repo)
        targets = git.targets()
        assert "refs/heads/main" in targets
        for _, tip in targets.values():
            for entry in git.files(tip):
                if entry.lfs:
                    assert store.large.has(repo.id, entry.lfs.oid), (repo.name, entry.path)
                else:
                    git.read(entry.oid)


@pytest.mark.timeout(300)
def test_gc_and_backups_under_load_lose_nothing(tmp_path: Path):
    store, kept, done = fresh(tmp_path / "data", "a", "b"), {}, threading.Event()
    failed: list[BaseException] = []

    def write(number: int) -> None:
        mine = Store(store.folder)
        for i in range(ROUNDS):
            name = f"me/{'ab'[(number + i) % 2]}"
            kept.update({(name, p): c for p, c in commit(mine, name, f"{number}-{i}").items()})
            repo = mine.repos.find("model", name)
            mine.branches.create(repo, f"x{number}", None)
            commit(mine, name, f"branch-{number}-{i}", f"refs/heads/x{number}")
            mine.branches.delete(repo, f"x{number}")
            short = mine.create_repo("model", "me", f"short-{number}-{i}")
            commit(mine, short.name, "gone")
            mine.delete_repo(short)

    def collect() -> None:
        while not done.is_set():
            Store(store.folder).collect_garbage()

    def copy() -> None:
        number = 0
        while not done.is_set():
            back_up(Store(store.folder), tmp_path / "backup")
            # Looked at in a copy of its own: to open it must not change what the next one meets.
            shutil.copytree(tmp_path / "backup", tmp_path / f"restored-{number}")
            check_whole(Store(tmp_path / f"restored-{number}"))
            number += 1
        assert number

    def guard(function: Callable[..., None], *values: int) -> None:
        try:
            function(*values)
        except BaseException as problem:
            failed.append(problem)

    writers = [threading.Thread(target=guard, args=(write, n)) for n in range(WRITERS)]
    others = [threading.Thread(target=guard, args=(each,)) for each in (collect, copy)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert failed == []
    assert len(kept) == 2 * WRITERS * ROUNDS
    for (name, path), content in kept.items():
        repo = store.repos.find("model", name)
        git = store.git(repo)
        entry = git.entry(git.resolve("main"), path)
        found = store.large.path(entry.lfs.oid).read_bytes() if entry.lfs else git.read(entry.oid)
        assert found == content
    store.collect_garbage()
    used = {row["oid"] for row in store.database.rows("SELECT oid FROM large_files")}
    assert {path.name for path in (store.folder / "lfs").glob("??/*")} == used


def test_a_second_backup_is_the_hub_as_it_is_and_not_the_sum_of_both(tmp_path: Path):
    store, target = fresh(tmp_path / "data", "a", "old"), tmp_path / "backup"
    repo = store.repos.find("model", "me/a")
    for name in ("x", "gone"):
        store.branches.create(repo, name, None)
    lost = upload(store, "me/old", b"of the old one alone")
    back_up(store, target)
    assert branches(Store(target), "me/a") == ["gone", "main", "x"]
    for name in ("x", "gone"):
        store.branches.delete(repo, name)
    store.branches.create(repo, "x/y", None)
    commit(store, "me/a", "second")
    store.delete_repo(store.repos.find("model", "me/old"))
    store.collect_garbage()
    assert back_up(store, target).missing == []
    copy = Store(target)
    assert branches(copy, "me/a") == ["main", "x/y"]
    assert [each.name for each in copy.repos.all()] == ["me/a"]
    assert not copy.large.path(lost.oid).exists()
    assert len(list((target / "repos").iterdir())) == 1
    check_whole(copy)
    store.branches.delete(repo, "x/y")
    store.branches.create(repo, "x", None)
    assert back_up(store, target).files == 0
    assert branches(Store(target), "me/a") == ["main", "x"]


def test_a_backup_tells_what_the_hub_itself_lacks(tmp_path: Path):
    store = fresh(tmp_path / "data", "a")
    (path,) = (tmp_path / "data" / "lfs").glob("??/*")
    path.unlink()
    assert back_up(store, tmp_path / "backup").missing == [str(path.relative_to(tmp_path / "data"))]


def test_a_large_file_is_not_taken_over_from_a_repo_that_goes(tmp_path: Path):
    store = fresh(tmp_path / "data", "a", "b")
    held = upload(store, "me/a", b"once")
    target = store.repos.find("model", "me/b")
    store.delete_repo(store.repos.find("model", "me/a"))
    store.collect_garbage()
    assert store.large.link(target.id, [held]) == []
    assert store.large.has(target.id, held.oid) is None


# Backs up to copies of a target, each time in a process that dies before one file operation.
SCRIPT = """
    import os, shutil, sys
    from pathlib import Path
    from hublora.localhub.store import Store
    from hublora.localhub.store.backup import back_up
    from tests.localhub.sudden_death import die_before

    def work(folder, target, last):
        changes = die_before(last, target)
        back_up(Store(folder), target)
        return changes()

    data, backup = map(Path, sys.argv[1:])
    steps, last = 0, 0
    while last <= steps:
        target = backup.with_name(f"target-{last}")
        shutil.copytree(backup, target)
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writing, str(work(data, target, last)).encode())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if last == 0:
            steps = int(os.read(reading, 9))
        assert os.WIFSIGNALED(status) == (last > 0), (last, status)
        os.close(reading), os.close(writing)
        print(target)
        last += 1 if last == 0 else 4
"""


def test_a_killed_backup_is_whole_or_says_that_it_is_not_and_the_next_one_mends_it(tmp_path: Path):
    store = fresh(tmp_path / "data", "a", "old")
    repo = store.repos.find("model", "me/a")
    store.branches.create(repo, "x", None)
    back_up(store, tmp_path / "backup")
    store.branches.delete(repo, "x")
    store.branches.create(repo, "x/y", None)
    commit(store, "me/a", "second")
    fresh_one = store.create_repo("model", "me", "new")
    commit(store, fresh_one.name, "first")
    store.delete_repo(store.repos.find("model", "me/old"))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(store.folder), tmp_path / "backup"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    targets = [Path(line) for line in done.stdout.split()]
    assert len(targets) > 10
    seen = set()
    for target in targets:
        try:
            copy = Store(shutil.copytree(target, tmp_path / "looked-at"))
        except Conflict as refusal:
            seen.add(refusal.message.partition(str(tmp_path / "looked-at"))[2])
        else:
            check_whole(copy)
            seen.add(", ".join([each.name for each in copy.repos.all()] + branches(copy, "me/a")))
        shutil.rmtree(tmp_path / "looked-at")
        back_up(store, target)
        mended = Store(target)
        check_whole(mended)
        assert branches(mended, "me/a") == ["main", "x/y"]
        assert [each.name for each in mended.repos.all()] == ["me/a", "me/new"]
    refused = " is a backup that was interrupted while it was brought up to date."
    assert seen == {refused, "me/a, me/old, main, x", "me/a, me/new, main, x/y"}


def test_a_large_file_that_was_damaged_is_mended_by_uploading_it_again(tmp_path: Path):
    store, content = fresh(tmp_path / "data", "a"), os.urandom(5000)
    repo = store.repos.find("model", "me/a")
    pointer = upload(store, "me/a", content)
    store.large.path(pointer.oid).write_bytes(content[:100])
    assert store.large.has(repo.id, pointer.oid) is None
    upload(store, "me/a", content)
    assert store.large.has(repo.id, pointer.oid) == pointer
    assert store.large.path(pointer.oid).read_bytes() == content
