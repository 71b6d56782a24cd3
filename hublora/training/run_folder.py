"""The run folder of a training: checkpoints and metrics log; loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hublora.filesystem import is_locked

STATE = "state.json"  # the file of a checkpoint that is written last
HISTORY = "training/history.jsonl"
CHECKPOINT = "checkpoint-"


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints in a run folder, oldest first."""
    found = [
        path
        for path in run.glob(f"{CHECKPOINT}*")
        if path.name.removeprefix(CHECKPOINT).isdigit() and (path / STATE).is_file()
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix(CHECKPOINT)))


def is_unused(run: Path) -> bool:
    """Tell whether a folder holds only the remains of a training that failed before its first step,
    and no training runs in it."""
    if not run.is_dir() or is_locked(run):
        return False
    kept = {".cache", HISTORY.split("/")[0]}
    if any(
        one.name not in kept and not one.name.startswith(".checkpoint-") for one in run.iterdir()
    ):
        return False
    history = run / HISTORY
    others = [one for one in history.parent.glob("*") if one != history]
    return not others and not read_history(history)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics log, up to a line that a crash cut short."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows
