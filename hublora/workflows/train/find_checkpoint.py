"""Finds the checkpoint that a training resumes from: in its run folder, by path, or on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hublora.errors import ConfigError
from hublora.progress import Callback, Note
from hublora.refs import is_repo

if TYPE_CHECKING:
    from hublora.training.config.training_config import TrainingConfig

LATEST = "latest"


def find_checkpoint(config: TrainingConfig, resume: str | None, callback: Callback) -> Path | None:
    """Return the folder of the checkpoint to resume from; None starts a new training.

    Args:
        config: Settings with the run folder.
        resume: "latest", a checkpoint's folder or its name, or a repo with an uploaded one; None
            starts a new training.
        callback: Called with a warning if "latest" finds none.

    Returns:
        A folder in the run folder; that of a repo is a temporary one beside it.

    Raises:
        ConfigError: No such checkpoint, or nothing was to be resumed and the folder has a training
            already.
    """
    from hublora.training.run_folder import STATE, list_checkpoints, resume_command

    folder = config.run_folder
    found = list_checkpoints(folder)
    if resume is None:
        if found:
            raise ConfigError(
                f"{folder} contains a training already.",
                f"Resume it: {resume_command(folder)}. Or start a new one in another folder: "
                "--output-dir …",
            )
        return None
    if resume == LATEST:
        if not found:
            callback(Note(f"No checkpoint in {folder} yet; starting a new training.", True))
        return found[-1] if found else None
    if is_repo(resume):
        from hublora.workflows.train.hub_checkpoint import download_checkpoint

        if found:
            raise ConfigError(
                f"{folder} contains a training already; {resume} resumes in a new folder.",
                f"Resume the one here: {resume_command(folder)}. Or name another folder: "
                "--output-dir …",
            )
        return download_checkpoint(resume, folder)
    path = Path(resume)
    for candidate in (path, *(one for one in found if one.name == path.name)):
        if (candidate / STATE).is_file():
            return candidate
    raise ConfigError(
        f"No checkpoint {resume!r} in {folder}.", "Use --resume without a name for the latest."
    )
