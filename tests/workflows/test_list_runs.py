"""`hublora runs` tells from the disk alone how far each training is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import hublora
from hublora.errors import Interrupted
from hublora.filesystem import locked
from hublora.progress import FileWritten
from tests.entry import Done

Cli = Callable[..., Done]
OPTIMIZER = "optimizer.safetensors"


@pytest.fixture(scope="module")
def runs(hub: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of trainings: whole, stopped, broken in several ways, and what is none."""
    folder = tmp_path_factory.mktemp("trainings")

    def train(name: str, stop: bool = False) -> None:
        def watch(event: object) -> None:
            if stop and isinstance(event, FileWritten) and event.path.name == "checkpoint-4":
                import signal

                os.kill(os.getpid(), signal.SIGINT)

        settings = {
            "base.model": "bases/epsilon",
            "data.dataset": "bases/images",
            "schedule.max_train_steps": 6,
            "checkpoint.steps": 2,
            "holdout.images": 1,
            "holdout.steps": 2,
            "validation.prompts": ["Totoro"],
            "validation.num_images": 2,
            "output_dir": folder / name,
        }
        hublora.train(hublora.TrainingConfig.from_settings(settings), callback=watch)

    train("deep/er/whole")
    with pytest.raises(Interrupted):
        train("stopped", stop=True)
    (folder / "notes").mkdir()
    (folder / "notes" / "README.md").write_text("no training")
    for name in ("torn", "garbled", "early", "lost"):
        shutil.copytree(folder / "stopped", folder / name)
    os.truncate(folder / "torn" / "checkpoint-4" / OPTIMIZER, 1000)
    (folder / "garbled" / "checkpoint-4" / "state.json").write_text("{")
    for checkpoint in (folder / "early").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    shutil.copytree(folder / "deep/er/whole", folder / "lost", dirs_exist_ok=True)
    (folder / "lost" / "pytorch_lora_weights.safetensors").write_bytes(b"x" * 100)
    return folder


def test_the_state_of_each_run_is_listed(runs: Path, hublora_cli: Cli, tmp_path: Path) -> None:
    with locked(runs / "early"):
        running = json.loads(hublora_cli("runs", str(runs / "early"), "--json").out)
    assert [run["state"] for run in running] == ["running"]
    done = hublora_cli("runs", str(runs), "--json", "--sheet", str(tmp_path / "all.png"))
    assert done.status == 0, done.err
    found = {Path(run["folder"]).relative_to(runs).as_posix(): run for run in json.loads(done.out)}
    assert {name: run["state"] for name, run in found.items()} == {
        "deep/er/whole": "finished",
        "early": "stopped",
        "garbled": "broken",
        "lost": "broken",
        "stopped": "stopped",
        "torn": "broken",
    }
    whole, stopped = found["deep/er/whole"], found["stopped"]
    assert (whole["step"], whole["steps"], stopped["step"], stopped["steps"]) == (6, 6, 4, 6)
    rows = (runs / "deep/er/whole/training/history.jsonl").read_text().splitlines()
    assert whole["loss"] == json.loads(rows[-1])["loss"]
    measures = [json.loads(row)["held_out"] for row in rows if "held_out" in row]
    assert whole["held_out"] == min(measures)
    assert whole["base"] == "bases/epsilon"
    assert whole["dataset"] == "bases/images"
    weights = runs / "deep/er/whole/pytorch_lora_weights.safetensors"
    assert whole["size"] == weights.stat().st_size
    assert whole["image"].endswith("images/validation.png")
    assert stopped["size"] > 0
    assert "Delete checkpoint-4 to go on from checkpoint-2" in found["torn"]["problem"]
    assert "state.json" in found["garbled"]["problem"]
    assert "No checkpoint" in found["early"]["problem"]
    with Image.open(tmp_path / "all.png") as sheet:
        assert sheet.width > 128


def test_images_on_the_sheet_have_their_prompts(runs: Path) -> None:
    from hublora.workflows.list_runs import list_runs, runs_sheet

    (whole,) = list_runs(runs / "deep")
    labelled = runs_sheet([whole])
    for path in (whole.folder / "images").glob("[0-9].png"):
        with Image.open(path) as image:
            image.save(path)  # without metadata
    assert runs_sheet([whole]).height < labelled.height


def test_a_person_reads_a_table(runs: Path, hublora_cli: Cli, tmp_path: Path) -> None:
    lines = hublora_cli("runs", str(runs)).out.splitlines()
    assert lines[0].split()[:5] == ["RUN", "STATE", "STEP", "LOSS", "HELD"]
    (stopped,) = (line for line in lines if line.startswith(f"{runs}/stopped "))
    assert "4/6" in stopped
    assert f"  Resume: hublora train --resume {runs}/stopped" in lines
    assert "There are no trainings" in hublora_cli("runs", str(tmp_path)).out
    missing = hublora_cli("runs", str(tmp_path / "nowhere"))
    assert missing.status == 1
    assert "does not exist" in missing.err


def test_looking_at_runs_loads_no_torch() -> None:
    check = (
        "import sys, hublora.workflows.list_runs, hublora.cli.runs; "
        "sys.exit(bool({'torch', 'diffusers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
