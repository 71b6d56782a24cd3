"""The run folder of a training: checkpoints and metrics log; loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hublora.errors import ConfigError
from hublora.filesystem import LOCK, OWN_FOLDER, RUN_SETTINGS, is_locked, write_atomically
from hublora.quoting import shell_path

STATE = "state.json"  # the file of a checkpoint that is written last
HISTORY = "training/history.jsonl"
CHECKPOINT = "checkpoint-"
PREVIEWS = "previews"
TRACKER_LOGS = "logs"  # of the trackers that write files
_IGNORED = ".gitignore"  # git and every upload of huggingface_hub obey it
_NOT_SHARED = (f"/{CHECKPOINT}*/", f"/{PREVIEWS}/", f"/{TRACKER_LOGS}/")


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints in a run folder, oldest first."""
    found = [
        path
        for path in run.glob(f"{CHECKPOINT}*")
        if path.name.removeprefix(CHECKPOINT).isdigit() and (path / STATE).is_file()
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix(CHECKPOINT)))


def check_own(run: Path) -> None:
    """Refuse a folder with files that no training of hublora made: results replace what is there.

    Args:
        run: Run folder; may be missing or empty.

    Raises:
        ConfigError: The path is a file, or the folder has content and is no run folder.
    """
    if run.exists() and not run.is_dir():
        raise ConfigError(f"output_dir must be a folder, got the file {run}.")
    found = sorted(one.name for one in run.iterdir()) if run.is_dir() else []
    lock = run / LOCK  # of a training that ran here
    if not found or lock.is_file() or list_checkpoints(run) or read_history(run / HISTORY):
        return
    listed = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
    raise ConfigError(
        f"output_dir must be a new folder or one of an earlier training, but {run} has other "
        f"files: {listed}.",
        f"Write into a folder inside it: --output-dir {shell_path(run / 'lora')}",
    )


def keep_from_uploads(run: Path) -> None:
    """Write which folders of a run are not to be shared into its `.gitignore`; one that is there
    stays."""
    if not (run / _IGNORED).exists():
        write_atomically(run / _IGNORED, "\n".join(_NOT_SHARED) + "\n")


def resume_command(run: Path) -> str:
    """Return the command that resumes the training of a run folder."""
    if (run / RUN_SETTINGS).is_file():
        return f"hublora train --resume {shell_path(run)}"
    return f"the same command with --output-dir {shell_path(run)} --resume"


def is_unused(run: Path) -> bool:
    """Tell whether a folder holds only the remains of a training that failed before its first step,
    and no training runs in it."""
    if not run.is_dir() or is_locked(run):
        return False
    kept = {OWN_FOLDER.split("/")[0], _IGNORED, HISTORY.split("/")[0]}
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
