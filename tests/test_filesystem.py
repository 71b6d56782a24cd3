"""Temporary folders are removed, also those of a process that was killed, and no others."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hublora.filesystem import remove_abandoned, temporary_folder

PROGRAM = """
import sys, time
from hublora.filesystem import temporary_folder
with temporary_folder("verify") as folder:
    (folder / "weights").write_text("large")
    print(folder.parent.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_what_a_killed_process_left_is_removed_by_the_next_one(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = temporary / process.stdout.readline().strip()
        remove_abandoned()
        assert (left / "files" / "weights").read_text() == "large", "it is in use"
        process.send_signal(signal.SIGKILL)
    assert left.is_dir()
    done = subprocess.run([sys.executable, "-m", "hublora", "runs", str(temporary)], check=False)
    assert done.returncode == 0
    assert not left.exists()


def test_folders_of_others_stay(temporary: Path) -> None:
    for name in ("hublora-mine", "other"):
        (temporary / name).mkdir()
        (temporary / name / "notes.txt").write_text("mine")
    (temporary / "hublora-link").symlink_to(temporary / "other")
    with temporary_folder("merge") as folder, temporary_folder("merge") as other:
        assert folder != other
        assert folder.is_dir()
        assert not list(folder.iterdir())
    assert sorted(path.name for path in temporary.iterdir()) == [
        "hublora-link",
        "hublora-mine",
        "other",
    ]
    assert (temporary / "hublora-mine" / "notes.txt").read_text() == "mine"
