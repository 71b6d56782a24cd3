"""Going on elsewhere: side branch ─ checked ─▶ a checkpoint in a run folder, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from hublora.errors import ConfigError, NotFoundError
from hublora.filesystem import nearest_folder, write_atomically
from hublora.hub import side_branch
from hublora.workflows.keeping import BRANCH, ENVIRONMENT, HISTORY, SETTINGS, STATE
from hublora.workflows.recipe import Recipe, own_settings


def read_kept(repo_id: str) -> Recipe:
    """Return the settings of the training whose checkpoint a repo keeps.

    Raises:
        NotFoundError: It keeps none.
        ConfigError: What it says cannot be read.
        HubError: The Hub is away.
    """
    with tempfile.TemporaryDirectory(prefix="hublora-") as folder:
        found = _find(repo_id)
        side_branch.fetch(repo_id, found, (SETTINGS, ENVIRONMENT), Path(folder))
        try:
            settings, environment = (
                json.loads(Path(folder, name).read_bytes()) for name in (SETTINGS, ENVIRONMENT)
            )
            own = own_settings(settings)
        except (ValueError, AttributeError, RecursionError) as error:
            raise _unreadable(repo_id, SETTINGS) from error
    pushes = own_settings({"pushes": settings.get("hub")}).get("pushes.push")
    # It goes on where it was taken up from, whatever else is said there.
    hub = {"hub.model_id": repo_id, "hub.push": bool(pushes)}
    name = repo_id.split("/")[-1]
    known = environment if isinstance(environment, dict) else {}
    return Recipe(f"{repo_id}@{BRANCH}", name, own | hub, known)


def bring(repo_id: str, near: Path) -> Path:
    """Bring the checkpoint that a repo keeps to this disk, into a hidden folder, and check it.

    Args:
        repo_id: owner/name.
        near: A folder, there or not, on the disk that it is to be on.

    Returns:
        `checkpoint-<step>`; the record of the training is beside it.

    Raises:
        NotFoundError: The repo keeps none.
        ConfigError: It is damaged.
        HubError: The Hub is away.
    """
    from hublora.training.checkpoint import EMBEDDINGS, OPTIMIZER, WEIGHTS, check_files

    found = _find(repo_id)
    names = [name for name in (STATE, WEIGHTS, EMBEDDINGS, OPTIMIZER) if name in found.files]
    hidden = Path(tempfile.mkdtemp(dir=nearest_folder(near), prefix=".checkpoint-"))
    try:
        folder = hidden / "files"
        side_branch.fetch(repo_id, found, names, folder)
        side_branch.fetch(repo_id, found, [HISTORY], hidden)
        for cache in (hidden, folder):
            shutil.rmtree(cache / ".cache", ignore_errors=True)
        step = check_files(folder, lambda name: _unreadable(repo_id, name))["step"]
        return folder.rename(hidden / f"checkpoint-{step}")
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def take_up(brought: Path, run: Path) -> Path:
    """Move what `bring` returned into a run folder, whole or not at all."""
    history = (brought.parent / HISTORY).read_bytes()
    final = run / brought.name
    write_atomically(run / "training" / HISTORY, history)
    shutil.rmtree(final, ignore_errors=True)  # it was none: without a state
    os.rename(brought, final)
    leave(brought)
    return final


def leave(brought: Path) -> None:
    """Remove what `bring` returned."""
    shutil.rmtree(brought.parent, ignore_errors=True)


def _find(repo_id: str) -> side_branch.RepoSnapshot:
    found = side_branch.look_up(repo_id, BRANCH)
    if found is None or STATE not in found.files:
        raise NotFoundError(
            f"{repo_id} keeps no checkpoint: it has no branch {BRANCH!r}.",
            "Only a training with --checkpoint-to-hub leaves one, until its result is pushed.",
        )
    for name in (SETTINGS, ENVIRONMENT, HISTORY):
        if name not in found.files:
            raise _unreadable(repo_id, name)
    return found


def _unreadable(repo_id: str, name: str) -> ConfigError:
    return ConfigError(
        f"The checkpoint that {repo_id} keeps is damaged: {name} is not what was written.",
        f"Nobody can go on from it; remove it: hf repos branch delete {repo_id} {BRANCH}",
    )
