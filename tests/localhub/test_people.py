"""Who may see and do what: privacy on the disk, tokens that end, names that come back."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hublora.localhub import LocalHub, add_user, create_token, import_folder
from hublora.localhub.store import Store
from hublora.localhub.store.errors import BadCredentials, Malformed
from tests.localhub.test_cli import run


def test_all_that_a_hub_stores_is_its_owners_alone(tmp_path):
    data, before = tmp_path / "data", os.umask(0o022)
    data.mkdir(mode=0o755)
    try:
        with LocalHub.start(data) as hub:
            api = HfApi(endpoint=hub.url, token=hub.token)
            api.create_repo("a", private=True)
            for proposed in (True, False):
                files = {"a.txt": b"a", "w.bin": os.urandom(20_000)}
                operations = [CommitOperationAdd(path, content) for path, content in files.items()]
                api.create_commit("me/a", operations, commit_message="change", create_pr=proposed)
            assert stat.S_IMODE(data.stat().st_mode) == 0o700
            assert {path.name for path in data.glob("hub.sqlite*")} >= {"hub.sqlite-wal"}
            open_ones = [
                path for path in data.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077
            ]
            # git's own packs are read-only for all, as git makes them: the folder keeps others out.
            assert [path for path in open_ones if path.parent.name != "pack"] == []
        data.chmod(0o755)  # as an earlier version left it
        with LocalHub.start(data):
            assert stat.S_IMODE(data.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_folder_made_by_an_import_is_private_too(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("a")
    import_folder(tmp_path / "data", "studio/base", tmp_path / "model", private=True)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / "hub.sqlite").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["bad--name", "x/y/z"])
def test_a_failed_import_leaves_neither_user_nor_repo(tmp_path, name):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("a")
    store = Store(tmp_path / "data")
    with pytest.raises(Malformed):
        import_folder(tmp_path / "data", f"studio/{name}", tmp_path / "model")
    assert store.people.everyone() == []


def test_an_import_that_fails_halfway_takes_back_what_it_made(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a\\b.txt").write_text("a")
    store = Store(tmp_path / "data")
    with pytest.raises(Malformed):
        import_folder(tmp_path / "data", "studio/base", tmp_path / "model")
    assert store.people.everyone() == []
    assert store.repos.all() == []
    assert not list((tmp_path / "data" / "repos").iterdir())


def test_a_read_only_token_neither_likes_nor_asks_for_access(hub, api, eve, repo):
    api.update_repo_settings(repo, gated="manual")
    reads = {"authorization": f"Bearer {create_token(hub.data_dir, 'eve', 'read')}"}
    store = Store(hub.data_dir)
    only = store.repos.find("model", repo).id
    token = store.people.create_token("eve", "fineGrained", "x", only, "read")
    one = {"authorization": f"Bearer {token}"}
    for headers in (reads, one):
        for path in (f"/{repo}/ask-access", f"/api/models/{repo}/like"):
            assert httpx.post(hub.url + path, headers=headers).status_code == 403
    assert list(api.list_pending_access_requests(repo)) == []
    api.update_repo_settings(repo, gated=False)
    for headers in (reads, one):
        assert httpx.post(f"{hub.url}/api/models/{repo}/like", headers=headers).status_code == 403
    assert list(api.list_repo_likers(repo)) == []
    writes = {"authorization": f"Bearer {eve.token}"}
    assert httpx.post(f"{hub.url}/api/models/{repo}/like", headers=writes).status_code == 200


def test_collections_do_not_tell_that_a_private_repo_is_in_one(hub, api, eve, nobody, repo):
    made = api.create_collection(f"with {repo[-20:]}")
    api.add_collection_item(made.slug, repo, "model")
    item = f"models/{repo}"
    assert [c.slug for c in nobody.list_collections(item=item)] == [made.slug]
    api.update_repo_settings(repo, private=True)
    assert [c.slug for c in api.list_collections(item=item)] == [made.slug]
    for stranger in (eve, nobody):
        assert list(stranger.list_collections(item=item)) == []
        assert list(stranger.list_collections(item="models/me/never-there")) == []
    api.delete_collection(made.slug)


def test_a_new_user_of_an_old_name_inherits_nothing(tmp_path):
    data = tmp_path / "data"
    with LocalHub.start(data) as hub:
        me = HfApi(endpoint=hub.url, token=hub.token)
        me.create_repo("lora")
        store = Store(data)
        add_user(data, "ada")
        old_id = store.people.find("ada")["id"]
        ada = HfApi(endpoint=hub.url, token=create_token(data, "ada"))
        first, second = (CommitOperationAdd(name, b"a") for name in ("a.txt", "b.txt"))
        opened = ada.create_commit("me/lora", [first], commit_message="mine", create_pr=True)
        ada.create_collection("secret", private=True)
        me.update_repo_settings("me/lora", gated="manual")
        httpx.post(
            f"{hub.url}/me/lora/ask-access", headers={"authorization": f"Bearer {ada.token}"}
        )
        me.accept_access_request("me/lora", "ada")
        old_tokens = {token.id for token in store.people.tokens("ada")}
        store.people.remove("ada")
        add_user(data, "ada")
        again = HfApi(endpoint=hub.url, token=create_token(data, "ada"))
        assert store.people.find("ada")["id"] != old_id
        assert old_tokens.isdisjoint(token.id for token in store.people.tokens("ada"))
        assert list(again.list_collections(owner="ada")) == []
        with pytest.raises(HfHubHTTPError) as refused:  # a gated repo let the other one in
            again.hf_hub_download("me/lora", ".gitattributes", local_dir=tmp_path)
        assert refused.value.response.status_code == 403
        me.update_repo_settings("me/lora", gated=False)
        found = again.get_discussion_details("me/lora", opened.pr_num)
        assert {found.author, *(event.author for event in found.events)} == {"ada (removed)"}
        for attempt in (
            lambda: again.create_commit(
                "me/lora", [second], commit_message="x", revision=opened.pr_revision
            ),
            lambda: again.rename_discussion("me/lora", opened.pr_num, new_title="taken over"),
            lambda: again.change_discussion_status("me/lora", opened.pr_num, "closed"),
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                attempt()
            assert refused.value.response.status_code == 403


def test_a_token_ends_when_it_was_to_end_and_its_last_use_is_known(tmp_path):
    store = Store(tmp_path)
    store.people.add("ada")
    long = store.people.create_token("ada", label="long", seconds=3600)
    assert [token.used_at for token in store.people.tokens()] == [None]
    assert store.people.authenticate(long).name == "ada"
    used = [token.used_at for token in store.people.tokens()]
    assert all(used)
    store.people.authenticate(long)
    assert [token.used_at for token in store.people.tokens()] == used  # once an hour is enough
    short = store.people.create_token("ada", label="short", seconds=0.001)
    time.sleep(0.01)
    with pytest.raises(BadCredentials):
        store.people.authenticate(short)
    assert store.people.authenticate(long).name == "ada"


def test_members_are_listed_and_leave_and_tokens_expire_by_command(tmp_path):
    data = ("--data", str(tmp_path))
    Store(tmp_path).first_user("me")
    assert run("user", "add", "studio", "--org", *data).exit_code == 0
    assert run("user", "join", "me", "studio", "--role", "read", *data).exit_code == 0
    members = json.loads(run("user", "members", "studio", "--json", *data).stdout)
    assert members == [{"name": "me", "role": "read"}]
    assert run("user", "leave", "me", "studio", *data).exit_code == 0
    assert run("user", "members", "studio", "-q", *data).stdout == ""
    assert "is not in 'studio'" in str(run("user", "leave", "me", "studio", *data).exception)
    assert run("token", "create", "me", "--expires", "2d", "-q", *data).exit_code == 0
    listed = json.loads(run("token", "ls", "--json", *data).stdout)
    assert [bool(row["expires_at"]) for row in listed] == [False, True]
    wrong = run("token", "create", "me", "--expires", "soon", *data)
    assert wrong.exit_code == 2
    assert "is no time such as 90m, 12h or 30d" in wrong.stderr


def test_a_data_folder_of_the_first_version_is_brought_up_to_date(tmp_path):
    import sqlite3

    from hublora.errors import HubloraError
    from hublora.localhub.store.database import SCHEMAS

    with sqlite3.connect(tmp_path / "hub.sqlite") as connection:
        connection.executescript(f"{SCHEMAS[0]}; PRAGMA user_version = 1;")
        connection.execute("INSERT INTO users VALUES (7, 'ada', 'user', 'Ada', '2026')")
    store = Store(tmp_path)
    store.people.add("bob")
    assert store.people.find("bob")["id"] == 8
    assert store.people.find("ada")["fullname"] == "Ada"
    with sqlite3.connect(tmp_path / "hub.sqlite") as connection:
        connection.execute(f"PRAGMA user_version = {len(SCHEMAS) + 1}")
    with pytest.raises(HubloraError, match="newer hublora"):
        Store(tmp_path)


def test_the_owners_token_is_printed_only_where_no_file_is_named(tmp_path):
    entry = [sys.executable, "-c", "from hublora.cli.hub import hub; hub()"]
    process = subprocess.Popen(
        [*entry, "--data", tmp_path / "data", "--port", "0", "--env", tmp_path / "a file"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "a file").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    out, log = process.communicate(timeout=30)
    token = (tmp_path / "data" / "owner-token").read_text().strip()
    assert f"HF_TOKEN={token}" in (tmp_path / "a file").read_text()
    assert out == ""
    assert token not in log
    assert f"source '{tmp_path / 'a file'}'" in log


def test_a_log_line_names_the_address_and_the_user(hub, api, tmp_path):
    log = Path(hub.data_dir) / "log"
    before = log.stat().st_size
    api.whoami()
    httpx.get(f"{hub.url}/api/models?limit=1")
    httpx.get(f"{hub.url}/api/whoami-v2", headers={"authorization": "Bearer hf_wrong"})
    lines = log.read_text()[before:].splitlines()
    ends = [line.split(" ms ")[1] for line in lines if "whoami" in line or "/api/models" in line]
    assert ends == ["127.0.0.1 user:me", "127.0.0.1 user:-", "127.0.0.1 user:-"]
