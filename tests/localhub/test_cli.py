"""`hublora hub` as a person types it, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from hublora.cli.hub import hub as command
from hublora.cli.output import out
from tests.localhub.damage import flip_first_byte

ENTRY = [sys.executable, "-c", "from hublora.cli.hub import hub; hub()"]


def run(*args: str) -> Result:
    """Run a command that ends."""
    out.use(as_json=False, quiet=False)
    return CliRunner().invoke(command, args)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`hublora hub --port 0 --env …` over an empty folder."""
    command = [*ENTRY, "--data", str(tmp_path / "data"), "--port", "0"]
    command += ["--env", str(tmp_path / "env"), "--token-file", str(tmp_path / "token"), "-v"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "env").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


def test_it_prints_and_writes_the_lines_to_paste_once_it_answers(server, tmp_path):
    lines = (tmp_path / "env").read_text().splitlines()
    facts = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    assert list(facts) == ["HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"]
    assert (tmp_path / "token").read_text() == facts["HF_TOKEN"] + "\n"
    for name in ("env", "token"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600
    assert httpx.get(facts["HF_ENDPOINT"] + "/health").status_code == 200
    hf = Path(sys.executable).with_name("hf")
    who = subprocess.run(
        [hf, "auth", "whoami"],
        env={**os.environ, **facts, "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "me" in who.stdout
    server.send_signal(signal.SIGTERM)
    out, log = server.communicate(timeout=15)
    assert server.returncode == 0
    assert out == ""  # what is printed ends up in journals: the file holds it instead
    (line,) = [line for line in log.splitlines() if "/api/whoami-v2 200" in line]
    assert line.endswith("ms 127.0.0.1 user:me")
    assert facts["HF_TOKEN"] not in log


def test_people_and_tokens_are_looked_after_while_it_runs(server, tmp_path):
    data = ("--data", str(tmp_path / "data"))
    assert run("user", "add", "ada", *data).exit_code == 0
    made = run("token", "create", "ada", "-q", *data)
    token = made.stdout.strip()
    url = (tmp_path / "env").read_text().split("HF_ENDPOINT=")[1].split()[0]
    who = {"headers": {"authorization": f"Bearer {token}"}}
    assert httpx.get(f"{url}/api/whoami-v2", **who).json()["name"] == "ada"
    listed = json.loads(run("token", "ls", "--json", *data).stdout)
    assert [row["user"] for row in listed] == ["me", "ada"]
    assert token not in str(listed)
    assert run("token", "revoke", str(listed[1]["id"]), *data).exit_code == 0
    assert httpx.get(f"{url}/api/whoami-v2", **who).status_code == 401
    assert run("user", "ls", "-q", *data).stdout.split() == ["ada", "me"]
    assert run("user", "rm", "ada", *data).exit_code == 0


def test_a_model_folder_is_taken_in_listed_and_backed_up(tmp_path):
    model, data = tmp_path / "model", ("--data", str(tmp_path / "data"))
    (model / "unet").mkdir(parents=True)
    (model / "model_index.json").write_text("{}")
    (model / "unet" / "w.safetensors").write_bytes(os.urandom(9000))
    from hublora.localhub.store import Store
    from hublora.localhub.store.errors import Malformed

    Store(tmp_path / "data").first_user("me")
    taken = run("import", str(model), "studio/base", *data)
    assert taken.stdout.startswith("studio/base@")
    assert "Made the user studio" in taken.stderr
    assert "Made" not in run("import", str(model), "studio/base", *data).stderr
    assert run("ls", "-q", *data).stdout.split() == ["studio/base"]
    assert run("backup", str(tmp_path / "copy"), *data).exit_code == 0
    again = run("backup", str(tmp_path / "copy"), *data)
    assert "Copied 0.0 MB" in again.stdout
    refused = run("backup", str(tmp_path / "data" / "copy"), *data)
    assert isinstance(refused.exception, Malformed)
    assert not (tmp_path / "data" / "copy").exists()
    copy = ("--data", str(tmp_path / "copy"))
    assert json.loads(run("ls", "--json", *copy).stdout)[0]["name"] == "studio/base"
    assert run("gc", *data).exit_code == 0
    (weights,) = [path for path in (tmp_path / "data" / "lfs").rglob("*") if path.is_file()]
    assert run("check", "-q", *data).stdout == ""
    flip_first_byte(weights)
    checked = run("check", "-q", *data)
    assert checked.stdout.split() == [weights.name]
    assert checked.exit_code == 1
    assert "Damaged or missing: 1 of 1 large file" in str(checked.exception)


def test_repos_are_made_moved_changed_reverted_and_deleted_from_the_folder(tmp_path):
    from hublora.localhub import add_user, import_folder
    from hublora.localhub.store import Store

    folder, data = tmp_path / "data", ("--data", str(tmp_path / "data"))
    store = Store(folder)
    store.first_user("me")
    add_user(folder, "ada")
    assert run("repo", "create", "ME/lora", "--private", "-q", *data).stdout == "me/lora\n"
    assert "user 'ghost'" in str(run("repo", "create", "ghost/lora", *data).exception)
    assert "already created" in str(run("repo", "create", "me/lora", *data).exception)
    for word in ("right", "wrong"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "a.txt").write_text(word)
        commit = import_folder(folder, "me/lora", tmp_path / "in")
    made = run("repo", "revert", "me/lora", commit[:10], "-q", *data).stdout.strip()
    found = store.repos.find("model", "me/lora")
    assert found.head == made
    assert store.git(found).read_file(made, "a.txt") == b"right"
    assert run("repo", "settings", "me/lora", "--public", "--gated", "auto", *data).exit_code == 0
    assert run("repo", "move", "me/lora", "ada/lora", *data).exit_code == 0
    moved = store.repos.find("model", "me/lora")
    assert (moved.name, moved.private, moved.gated) == ("ada/lora", False, "auto")
    assert run("repo", "delete", "ada/lora", *data).exit_code == 1  # nobody there to say yes
    assert run("repo", "delete", "ada/lora", "--yes", *data).exit_code == 0
    assert run("ls", "-q", *data).stdout == ""


def test_every_command_has_help_with_examples():
    def each(group, path=()):
        yield path, group
        for name, inner in getattr(group, "commands", {}).items():
            yield from each(inner, (*path, name))

    for path, _ in each(command):
        shown = run(*path, "--help").output
        assert "Examples:" in shown, path
        assert "hublora hub" in shown, path


def test_wrong_usage_exits_2_and_a_missing_hub_says_what_to_do(tmp_path):
    assert run("token", "create").exit_code == 2
    missing = run("ls", "--data", str(tmp_path / "nothing"))
    assert "hublora hub --data" in str(missing.exception)
