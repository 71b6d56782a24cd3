"""The settings that a run folder keeps for itself, so that `--resume FOLDER` needs nothing else.

They are written when a training starts and stay on this machine: unlike those that are published
(`training/config.yaml`) they have the local paths, absolute, and where the result is pushed to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.filesystem import RUN_SETTINGS, write_atomically
from hublora.quoting import shell_path
from hublora.training.config.resolve import without_dependent_defaults
from hublora.training.run_folder import STATE
from hublora.workflows.train.find_checkpoint import LATEST

if TYPE_CHECKING:
    from hublora.training.config.training_config import TrainingConfig

_PATHS = (
    *("base.model", "base.components", "base.generation"),
    *("data.folder", "data.archive", "data.cache_dir", "dreambooth.class_folder"),
)
_OWN = 0o600  # an address may have a signature


def write_run_settings(config: TrainingConfig) -> None:
    """Write the settings into the run folder, with absolute paths."""
    settings = config.flat()
    for key in _PATHS:
        if settings.get(key) is not None:
            settings[key] = _absolute(str(settings[key]))
    for key in ("start_from", "assistant"):
        ref = getattr(config.adapter, key)
        if ref is not None and ref.kind == "local":
            weight = f":{ref.weight}" if ref.weight != 1 else ""
            settings[f"adapter.{key}"] = _absolute(ref.location) + weight
    del settings["output_dir"]
    text = json.dumps(settings, indent=1) + "\n"
    write_atomically(config.run_folder / RUN_SETTINGS, text, mode=_OWN)


def read_run_settings(run: Path) -> dict[str, Any] | None:
    """Return the settings of a run folder under dotted keys; None if it has none that parse."""
    try:
        found = json.loads((run / RUN_SETTINGS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return without_dependent_defaults(found) if isinstance(found, dict) else None


def resume_here(resume: str | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Return the settings to resume the run of a folder with, and the checkpoint to resume from.

    Args:
        resume: Value of --resume: "latest", a run folder, or a checkpoint.
        given: Settings under dotted keys that replace those of the run.

    Returns:
        None if `resume` names no run folder that this command could read settings from.

    Raises:
        ConfigError: The folder has no settings, and `given` names no base.
    """
    if resume is None:
        return None
    path = Path(resume).expanduser()
    if resume != LATEST and path.is_dir():
        is_checkpoint = (path / STATE).is_file()
        run, checkpoint = (path.parent, str(path)) if is_checkpoint else (path, LATEST)
    elif "base.model" not in given and given.get("output_dir") is not None:
        run, checkpoint = Path(given["output_dir"]), resume
    elif "base.model" not in given and resume != LATEST:
        raise ConfigError(
            f"There is no run folder or checkpoint {resume!r}.",
            "Name one, or the repo that checkpoints were uploaded to.",
        )
    else:  # a whole command
        return None
    own = read_run_settings(run)
    if own is None and "base.model" not in given:
        raise ConfigError(
            f"{run} has no settings of a training that could be resumed.",
            f"Repeat the command of the training with: --output-dir {shell_path(run)} --resume",
        )
    return {**(own or {}), **given, "output_dir": run}, checkpoint


def _absolute(named: str) -> str:
    """Return a path that exists as an absolute one; anything else, such as a repo id, as it is."""
    path = Path(named).expanduser()
    return str(path.resolve()) if "://" not in named and path.exists() else named
