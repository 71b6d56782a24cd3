"""Nothing that is stored keeps the Hub from starting, or from answering for everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pygit2
import pytest
from huggingface_hub import HfApi
from pygit2.enums import ObjectType

from hublora.localhub import LocalHub
from hublora.localhub.store import Store
from hublora.localhub.store.git import GitRepo
from hublora.localhub.store.repos import Repo

READS = (
    "/api/models/{repo}",
    "/api/models/{repo}?blobs=1",
    "/api/models/{repo}/tree/main?recursive=1",
    "/api/models/{repo}/tree/main?expand=1",
    "/api/models/{repo}/commits/main",
    "/api/models/{repo}/refs",
    "/{repo}",
    "/{repo}/tree/main",
    "/{repo}/commits/main",
    "/{repo}/commit/main",
    "/{repo}/compare/main..main",
    "/{repo}.git/info/refs?service=git-upload-pack",
)
LISTS = ("/api/models?full=1", "/api/models?expand=siblings&expand=safetensors", "/models")
HTTP = httpx.Client(timeout=60)
SIGNED = b"A <a> 1 +0000"


def commit(
    tree: str,
    author: bytes = SIGNED,
    committer: bytes = SIGNED,
    more: bytes = b"",
    text: bytes = b"x",
) -> bytes:
    """Return the bytes of a commit object."""
    lines = [b"tree " + tree.encode(), b"author " + author, b"committer " + committer]
    return b"\n".join([*lines, *([more] if more else []), b"", text])


def odd_commits(tree: str) -> dict[str, bytes]:
    """Return commits that git keeps and libraries stumble over."""
    return {
        "an encoding that nobody knows": commit(tree, more=b"encoding klingon", text=b"\xff"),
        "a year beyond 9999": commit(tree, *[b"A <a> 999999999999 +0000"] * 2),
        "a year before Christ": commit(tree, *[b"A <a> -99999999999 +0000"] * 2),
        "a zone of 99 hours": commit(tree, *[b"A <a> 1 +9999"] * 2),
        "names that are not UTF-8": commit(
            tree, *[b"\xff\xfe <a> 1 +0000"] * 2, text=b"\xff\n\xfe"
        ),
        "no names": commit(tree, *[b"<> 1 +0000"] * 2, text=b""),
    }


def deep_tree(git: pygit2.Repository, depth: int) -> str:
    """Return a tree with a file under `depth` folders."""
    kind, content = b"100644 f", git.create_blob(b"x").raw
    for _ in range(depth):
        tree = git.odb.write(ObjectType.TREE, kind + b"\0" + content)
        kind, content = b"40000 d", tree.raw
    return str(git.odb.write(ObjectType.TREE, kind + b"\0" + content))


def flat_tree(git: pygit2.Repository, *names: bytes) -> str:
    """Return a tree of files with those names."""
    blob = git.create_blob(b"x").raw
    lines = [b"100644 " + name + b"\0" + blob for name in sorted(names)]
    return str(git.odb.write(ObjectType.TREE, b"".join(lines)))


def put(store: Store, name: str, content: bytes) -> None:
    """Make a commit object the newest of a repo, as a crash before indexing leaves it."""
    repo = store.repos.find("model", f"me/{name}")
    git = store.git(repo).raw
    oid = git.odb.write(ObjectType.COMMIT, content)
    (Path(git.path) / "refs" / "heads" / "main").write_text(f"{oid}\n")
    store.repos.mark_stale(repo.id)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalHub, list[str], Path]]:
    """A Hub that starts on readable but odd repos, their names, and its log."""
    data = tmp_path_factory.mktemp("odd") / "data"
    store = Store(data)
    store.first_user("me")
    store.create_repo("model", "me", "plain")
    trees = store.git(store.create_repo("model", "me", "deep")).raw
    put(store, "deep", commit(deep_tree(trees, 1500)))
    names = ["plain", "deep"]
    for number, what in enumerate(odd_commits("0" * 40)):
        git = store.git(store.create_repo("model", "me", f"commit-{number}")).raw
        put(store, f"commit-{number}", odd_commits(flat_tree(git, b"a.txt"))[what])
        names.append(f"commit-{number}")
    git = store.git(store.create_repo("model", "me", "names")).raw
    put(store, "names", commit(flat_tree(git, b"good.txt", b"\xff\xfe.txt", b"\xed\xa0\x80.bin")))
    with LocalHub.start(data, log_file=data / "log") as hub:
        yield hub, [*names, "names"], data / "log"


def test_odd_repos_are_read_like_any_other(odd):
    hub, names, log_file = odd
    for name in names:
        for path in (*READS, *LISTS):
            answer = HTTP.get(hub.url + path.format(repo=f"me/{name}"), timeout=60)
            assert answer.status_code == 200, (name, path, answer.text[:300])
    log = log_file.read_text()
    assert "Traceback" not in log
    assert "set aside" not in log


def test_deep_files_are_listed_and_names_that_are_no_text_are_not(odd):
    hub, _, _ = odd
    deep = HTTP.get(f"{hub.url}/api/models/me/deep/tree/main?recursive=1&limit=1000").json()
    assert len(deep) == 1000
    assert deep[2]["path"] == "d/d/d"
    found = HTTP.get(f"{hub.url}/api/models/me/names/tree/main").json()
    assert [entry["path"] for entry in found] == ["good.txt"]


def spoil_index(folder: Path) -> None:
    for index in folder.glob("objects/pack/*.idx"):
        index.chmod(0o644)
        index.write_bytes(b"\0" * 200)


def spoil_pack(folder: Path) -> None:
    for pack in folder.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:12] + b"\xff" * (pack.stat().st_size - 12))


def lose_objects(folder: Path) -> None:
    for path in folder.glob("objects/pack/*"):
        path.unlink()


def lose_everything(folder: Path) -> None:
    shutil.rmtree(folder)


def spoil_ref(folder: Path) -> None:
    (folder / "refs" / "heads" / "main").write_text("no commit at all\n")


def no_author(folder: Path) -> None:
    git = GitRepo(folder)
    tree = str(git.object(git.resolve("main")).tree.id)
    oid = git.raw.odb.write(ObjectType.COMMIT, f"tree {tree}\n\nx".encode())
    (folder / "refs" / "heads" / "main").write_text(f"{oid}\n")


DAMAGE = [spoil_index, spoil_pack, lose_objects, lose_everything, spoil_ref, no_author]


def test_damaged_repos_are_set_aside_until_they_are_restored_and_the_others_are_served(tmp_path):
    data, backup = tmp_path / "data", tmp_path / "backup"
    store = Store(data)
    store.first_user("me")
    store.create_repo("model", "me", "sound")
    bad = []
    for damage in DAMAGE:
        for stale in (False, True):
            repo = store.create_repo("model", "me", f"{damage.__name__}-{'ny'[stale]}")
            shutil.copytree(folder_of(data, repo), backup / repo.id)
            damage(folder_of(data, repo))
            if stale:
                store.repos.mark_stale(repo.id)
            bad.append(repo)
    with LocalHub.start(data, log_file=tmp_path / "log") as hub:
        log = (tmp_path / "log").read_text()
        assert HTTP.get(f"{hub.url}/me/sound").status_code == 200
        for path in LISTS:
            answer = HTTP.get(hub.url + path)
            assert answer.status_code == 200, path
            assert all(repo.name in answer.text for repo in bad)
        for repo in bad:
            assert f"{repo.name} is set aside, its folder is repos/{repo.id}.git" in log
            for path in READS:
                answer = HTTP.get(hub.url + path.format(repo=repo.name))
                assert answer.status_code == 500, path
                assert "is damaged and set aside" in answer.text, path
        assert HTTP.get(f"{hub.url}/health").json() == {"status": "ok"}
    assert "Traceback" not in (tmp_path / "log").read_text()
    for repo in bad:
        shutil.rmtree(folder_of(data, repo), ignore_errors=True)
        shutil.copytree(backup / repo.id, folder_of(data, repo))
    with LocalHub.start(data) as hub:
        for repo in bad:
            assert HTTP.get(f"{hub.url}/{repo.name}").status_code == 200


def folder_of(data: Path, repo: Repo) -> Path:
    return data / "repos" / f"{repo.id}.git"


def test_a_repo_that_is_damaged_while_the_hub_runs_is_told_in_a_line_and_can_be_deleted(tmp_path):
    data = tmp_path / "data"
    with LocalHub.start(data, log_file=tmp_path / "log") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        for name in ("bad", "sound"):
            api.create_repo(name)
        bad = Store(data).repos.find("model", "me/bad")
        lose_objects(folder_of(data, bad))
        for path in READS:
            answer = HTTP.get(hub.url + path.format(repo="me/bad"))
            assert answer.status_code in (200, 404, 500), path
            assert "Traceback" not in answer.text
        assert {m.id for m in api.list_models(full=True)} == {"me/bad", "me/sound"}
        api.delete_repo("me/bad")
        api.upload_file(path_or_fileobj=b"x", path_in_repo="a", repo_id="me/sound")
    assert "Traceback" not in (tmp_path / "log").read_text()


CARDS = [
    "f: !!bool x\ne: !!int ''\nc: !!timestamp x",
    "a: 1:1:1:1:1:1",
    "base_model: .nan\ntags: [1e999, .inf]",
    "tags: {a: b}\nlanguage: no",
    "a: &a [x]\nb: [*a, *a]",
    '"\\ud800": 1',
    "pipeline_tag: [a]\nlibrary_name: {x: 1}\nwidget: [[], {output: 3}, {output: {url: [1]}}]",
    "base_model: [me/a, 3, null]\nmodel-index: x\nlicense: 3\ndatasets: {}\narxiv: [[1]]",
]


def test_a_card_of_any_kind_is_committed_shown_and_survives_a_restart(tmp_path):
    data = tmp_path / "data"
    with LocalHub.start(data, log_file=tmp_path / "log") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        for number, card in enumerate(CARDS):
            api.create_repo(f"r{number}")
            post_readme(hub, f"me/r{number}", f"---\n{card}\n---\n# Hi\n")
    with LocalHub.start(data, log_file=tmp_path / "log") as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        assert len(list(api.list_models(full=True, cardData=True))) == len(CARDS)
        for number in range(len(CARDS)):
            for path in (*READS, *LISTS):
                answer = HTTP.get(hub.url + path.format(repo=f"me/r{number}"))
                assert answer.status_code == 200, (CARDS[number], path)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "set aside" not in log


def post_readme(hub: LocalHub, repo: str, readme: str) -> None:
    """Commit a README as a client does that does not ask for an opinion first."""
    lines = [
        {"key": "header", "value": {"summary": "card"}},
        {"key": "file", "value": {"path": "README.md", "content": readme, "encoding": "utf-8"}},
    ]
    answer = HTTP.post(
        f"{hub.url}/api/models/{repo}/commit/main",
        content="".join(json.dumps(line) + "\n" for line in lines),
        headers={"authorization": f"Bearer {hub.token}"},
    )
    assert answer.status_code == 200, answer.text
