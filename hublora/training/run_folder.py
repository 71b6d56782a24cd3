"""What a training's folder holds, by name; looking at it loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STATE = "state.json"  # of a checkpoint, written last
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


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a training's record; a line cut short by a crash is the last one."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows
