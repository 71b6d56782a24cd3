"""Every attack of the table is refused, gives nothing away, and leaves no trace on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hublora.localhub import LocalHub, add_user, create_token
from hublora.localhub.store import Store
from tests.localhub.attacks import REFUSED, SECRET, Attack, World, table

ATTACKS = list(table())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A Hub with secrets, in a folder with a secret beside it."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "secret").write_bytes(SECRET)
    data = folder / "data"
    with LocalHub.start(data, patience=1.0, log_file=folder / "log") as hub:
        add_user(data, "eve")
        revoked = create_token(data, "me")
        store = Store(data)
        store.people.revoke_token(revoked)
        api = HfApi(endpoint=hub.url, token=hub.token)
        eve = create_token(data, "eve")
        card = b"---\ntags: [vault-tag]\n---\n" + SECRET
        weights = SECRET + os.urandom(3000)
        for name, private in (("old-vault", True), ("gated", False), ("open", False)):
            api.create_repo(name, private=private)
            files = {"a.txt": b"a"} if name == "open" else {"secret.txt": SECRET, "s.bin": weights}
            if private:
                files["README.md"] = card
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            api.create_commit(f"me/{name}", operations, commit_message=f"fill {name}")
        api.move_repo("me/old-vault", "me/vault")
        proposed = [CommitOperationAdd("b.txt", SECRET)]
        api.create_commit("me/vault", proposed, commit_message="propose", create_pr=True)
        api.update_repo_settings("me/gated", gated="manual")
        HfApi(endpoint=hub.url, token=eve).create_repo("own")
        (entry,) = api.get_paths_info("me/vault", ["s.bin"])
        vault = store.repos.find("model", "me/vault")
        gated = store.repos.find("model", "me/gated")
        yield World(
            url=hub.url,
            folder=folder,
            owner=hub.token,
            eve=eve,
            reader=create_token(data, "me", "read"),
            one_repo=store.people.create_token("eve", "fineGrained", "one", gated.id, "write"),
            revoked=revoked,
            secret_oid=entry.lfs.sha256,
            secret_size=entry.lfs.size,
            vault_commit=api.model_info("me/vault").sha,
            vault_id=vault.id,
        )


def traces(folder: Path) -> set[str]:
    """Return what is on disk, apart from the log and SQLite's own files."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name != "log" and not path.name.startswith("hub.sqlite")
    }


def register(world: World) -> list[tuple]:
    """Return what the database says there is."""
    store = Store(world.folder / "data")
    return [
        tuple(row)
        for question in (
            "SELECT kind, name, private, gated, head, likes FROM repos ORDER BY id",
            "SELECT repo, oid FROM large_files ORDER BY 1, 2",
            "SELECT repo, number, status, title FROM discussions ORDER BY 1, 2",
            "SELECT id, data FROM events ORDER BY id",
            "SELECT slug FROM collections",
            "SELECT repo, user, status FROM access_requests",
        )
        for row in store.database.rows(question)
    ]


@pytest.mark.parametrize("attack", ATTACKS, ids=[f"{a.area}-{a.what}"[:70] for a in ATTACKS])
def test_it_is_refused_and_leaves_no_trace(world: World, attack: Attack):
    before, known, logged = traces(world.folder), register(world), log_size(world)
    world.seen.clear()
    answers = attack.act(world)
    for answer in answers if isinstance(answers, list) else [answers]:
        assert answer in REFUSED | attack.accepts, (answers, world.seen[-1][:500])
    for seen in world.seen:
        assert SECRET not in seen
        assert b"Traceback" not in seen
        assert b"root:x:" not in seen
        assert b"<script>" not in seen
        assert b"\nset-cookie" not in seen.lower()
        # The owner's tokens never come back, and a private repo's name stays unknown.
        assert world.owner.encode() not in seen
    assert traces(world.folder) == before
    assert register(world) == known
    log = (world.folder / "log").read_bytes()[logged:]
    assert b"Traceback" not in log, log.decode()
    for token in (world.owner, world.eve, world.reader, world.revoked):
        assert token.encode() not in log


def log_size(world: World) -> int:
    """Return how much the server has logged so far."""
    return (world.folder / "log").stat().st_size


def test_there_are_at_least_60_and_each_has_a_name_of_its_own():
    assert len(ATTACKS) >= 60
    assert len({(attack.area, attack.what) for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_in_a_real_browser_nothing_of_a_hostile_repo_runs(world: World, tmp_path: Path):
    run = "document.title='HACKED'"
    card = f"""---
tags: ["<script>{run}</script>"]
license: other
license_name: "<img src=x onerror={run}>"
base_model: "javascript:{run}"
widget:
- text: "<script>{run}</script><img src=x onerror={run}>"
  output:
    url: 'images/"onerror="x.png'
---
# <script>{run}</script>
<Gallery />
<img src="x" onerror="{run}"> <svg onload="{run}"></svg>
<iframe srcdoc="<script>parent.{run}</script>"></iframe> <details open ontoggle="{run}">x</details>
<a href="javascript:{run}" autofocus onfocus="{run}">x</a>
"""
    files = {
        "README.md": card,
        'images/"onerror="x.png': "x",
        f"<img src=x onerror={run}>": "x",
    }
    api = HfApi(endpoint=world.url, token=world.owner)
    api.create_repo("hostile", exist_ok=True)
    operations = [CommitOperationAdd(path, text.encode()) for path, text in files.items()]
    api.create_commit("me/hostile", operations, commit_message=f"<script>{run}</script>")
    talk = api.create_discussion("me/hostile", f"<script>{run}</script>", description=card)
    pages = ["", "/tree/main", "/commits/main", f"/discussions/{talk.num}", "/commit/main"]
    for path in [*(f"/me/hostile{page}" for page in pages), "/models"]:
        shown = subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--dump-dom",
                f"--user-data-dir={tmp_path}",
                world.url + path,
            ],
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        assert "hublora</title>" in shown, path
        assert "HACKED</title>" not in shown, path
    api.delete_repo("me/hostile")
