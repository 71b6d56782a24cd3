"""Refs are whole for every reader, while they move and after a kill at any step."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import httpx

from hublora.localhub.store import Store
from hublora.localhub.store.operations import PutFile
from hublora.localhub.store.writing import signature

COMMITS, WRITERS = 25, 3


def commit(store: Store, name: str, path: str, branch: str = "main") -> str:
    """Make one commit of one file."""
    repo = store.repos.find("model", name)
    with store.commits.stage(repo) as stage:
        operations = [PutFile(path, stage.blob(path.encode()))]
        ref = f"refs/heads/{branch}"
        return store.commits.apply(repo, stage, operations, path, signature("me"), ref=ref)


def test_readers_never_meet_a_ref_on_its_way(hub, api, repo):
    """Refs, a clone's first question, trees: 200 throughout, while branches come, move and go."""
    store, writing = Store(hub.data_dir), threading.Event()
    met: list[tuple[str, int]] = []

    def write(number: int) -> None:
        for i in range(COMMITS):
            commit(store, repo, f"{number}-{i}.txt")
            branch = f"try/{number}/{i}"
            store.branches.create(store.repos.find("model", repo), branch, None)
            store.branches.delete(store.repos.find("model", repo), branch)

    def read(path: str) -> None:
        with httpx.Client(base_url=hub.url, timeout=30) as http:
            while not writing.is_set():
                met.append((path, http.get(path).status_code))

    paths = (
        f"/api/models/{repo}/refs",
        f"/{repo}.git/info/refs?service=git-upload-pack",
        f"/api/models/{repo}/tree/main",
    )
    readers = [threading.Thread(target=read, args=(path,)) for path in paths]
    writers = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    for thread in readers:
        thread.join()
    assert {path for path, _ in met} == set(paths)
    assert {status for _, status in met} == {200}


def test_what_an_older_kill_left_among_the_refs_hurts_nobody_and_goes(hub, api, repo, tmp_path):
    store = Store(hub.data_dir)
    refs = store.git(store.repos.find("model", repo)).folder / "refs"
    strays = [refs / "heads" / ".main.k3v9_x2a", refs / "heads" / "main.lock", refs / ".x.abcdefgh"]
    for stray in strays:
        stray.write_bytes(b"")
    (refs / "heads" / "half").write_bytes(b"12")
    assert [branch.name for branch in api.list_repo_refs(repo).branches] == ["main"]
    asked = httpx.get(f"{hub.url}/{repo}.git/info/refs?service=git-upload-pack")
    assert asked.status_code == 200
    assert b"half" not in asked.content
    store.recover()
    assert not [stray for stray in strays if stray.exists()]
    assert api.create_branch(repo, branch="new") is None


# Does what a Hub does all day on copies of a data folder, each in a process of its own that dies
# before one of its file operations; prints the copies, the first of which nobody died on.
SCRIPT = """
    import os, shutil, sys
    from pathlib import Path
    from hublora.localhub.store import Store
    from tests.localhub.test_refs import commit
    from tests.localhub.sudden_death import die_before

    def work(folder, last):
        store = Store(folder)
        changes = die_before(last, folder)
        commit(store, "me/old", "b.txt")
        repo = store.repos.find("model", "me/old")
        store.branches.create(repo, "x/y", None)
        store.branches.create_tag(repo, "v1", "main", "with words", "me")
        store.branches.delete(repo, "x/y")
        store.create_repo("model", "me", "new")
        store.duplicate_repo(repo, "me", "twin", private=False, sdk=None)
        store.delete_repo(repo)
        return changes()

    origin = Path(sys.argv[1])
    steps, last = 0, 0
    while last <= steps:
        folder = origin.with_name(f"killed-{last}")
        shutil.copytree(origin, folder)
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writing, str(work(folder, last)).encode())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if last == 0:
            steps = int(os.read(reading, 9))
        assert os.WIFSIGNALED(status) == (last > 0), (last, status)
        os.close(reading), os.close(writing)
        print(folder)
        last += 1 if last == 0 else 3
"""


def test_a_kill_before_any_file_operation_leaves_what_a_start_mends(tmp_path: Path):
    origin = Store(tmp_path / "origin")
    origin.first_user("me")
    origin.create_repo("model", "me", "old")
    commit(origin, "me/old", "a.txt")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "origin")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    folders = done.stdout.split()
    assert len(folders) > 20
    for folder in folders:
        check_mended(Path(folder))


def check_mended(folder: Path) -> None:
    """A start brings every repo back, whole, and leaves nothing that is nobody's."""
    store = Store(folder)
    store.recover()
    repos = store.repos.all()
    assert {path.name for path in (folder / "repos").iterdir()} == {f"{r.id}.git" for r in repos}
    assert not list((folder / "uploads").iterdir())
    assert not list((folder / "trash").iterdir())
    for repo in repos:
        git = store.git(repo)
        found = {p.relative_to(git.folder).as_posix() for p in (git.folder / "refs").rglob("*")}
        named = {name for name in found if (git.folder / name).is_file()}
        assert named == set(git.targets())
        assert git.resolve("main") == repo.head
        assert git.files(repo.head)
        packs = git.folder / "objects" / "pack"
        assert {p.stem for p in packs.glob("*.pack")} == {p.stem for p in packs.glob("*.idx")}
        assert not list(packs.glob(".*"))
        commit(store, repo.name, "after.txt")
        if "refs/heads/x/y" in git.targets():
            store.branches.delete(repo, "x/y")
        store.branches.create(repo, "x", None)  # no empty folder is in its way
        if shutil.which("git"):
            subprocess.run(["git", "-C", git.folder, "fsck", "--strict"], check=True)
