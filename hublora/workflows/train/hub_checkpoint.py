"""Checkpoints on the Hub: run folder ─ background upload ─▶ side branch.

The branch `checkpoint` of the adapter's repo has the newest checkpoint, its settings and metrics
log: safetensors and JSON only. A Hub that is unreachable costs an upload, never the training.

Over 300 lines because uploading and downloading share the branch's layout and its checks.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.errors import ConfigError, HubloraError, NotFoundError
from hublora.filesystem import nearest_folder, temporary_folder, write_atomically
from hublora.hub import branch_storage
from hublora.hub.resolve import RepoSnapshot
from hublora.progress import Callback, Note, Progress
from hublora.workflows.train.recipe import Recipe, own_settings, recorded_settings

if TYPE_CHECKING:
    from hublora.training.session import Session

BRANCH = "checkpoint"
SETTINGS, ENVIRONMENT, HISTORY, STATE = (
    "settings.json",
    "environment.json",
    "history.jsonl",
    "state.json",
)
_PATIENCE = 300.0  # seconds to wait at the end for an upload
_PENDING = ".uploading-"
_KINDS = (".safetensors", ".json", ".jsonl")


class CheckpointUploader:
    """Uploads checkpoints one at a time in a thread of its own.

    A checkpoint that is submitted during an upload waits; a newer one replaces it. Messages of the
    thread are reported by `report`, in the thread of the training.
    """

    def __init__(self, session: Session) -> None:
        hub = session.config.hub
        self._repo_id, self._private = str(hub.model_id), hub.private
        self._run = session.config.run_folder
        for rest in self._run.glob(f"{_PENDING}*"):  # of a process that was killed
            shutil.rmtree(rest, ignore_errors=True)
        self._documents = _documents(session)
        self._notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._waiting: Path | None = None
        self._busy = self._failed = self._over = False
        threading.Thread(target=self._work, name="hublora-uploader", daemon=True).start()

    @property
    def command(self) -> str:
        """Command that resumes the training on any machine."""
        return f"hublora train --resume {self._repo_id}"

    def submit(self, checkpoint: Path) -> None:
        """Queue a checkpoint for upload; its folder may be removed as soon as this returns."""
        try:
            taken = self._take(checkpoint)
        except OSError as error:  # a full disk: the next checkpoint will say so itself
            self._notes.put(Note(f"{checkpoint.name} is on this disk only: {error}", True))
            return
        with self._changed:
            if self._waiting is not None:
                shutil.rmtree(self._waiting, ignore_errors=True)
            self._waiting = taken
            self._changed.notify_all()

    def _take(self, checkpoint: Path) -> Path:
        """Link the files to be uploaded into a folder of their own; return it."""
        taken = Path(tempfile.mkdtemp(dir=self._run, prefix=_PENDING))
        try:
            for file in checkpoint.rglob("*"):
                if file.is_file():
                    _link(file, taken / file.relative_to(checkpoint))
            shutil.copy(self._run / "training" / HISTORY, taken / HISTORY)
            for name, text in self._documents.items():
                (taken / name).write_text(text)
        except OSError:
            shutil.rmtree(taken, ignore_errors=True)
            raise
        return taken

    def report(self, callback: Callback) -> None:
        """Report the messages of the thread since the last call."""
        while not self._notes.empty():
            callback(self._notes.get())

    def finish(self, callback: Callback) -> None:
        """Wait for the last upload, at most five minutes; afterwards nothing is submitted."""
        until = time.monotonic() + _PATIENCE
        with self._changed:
            self._over = True
            self._changed.notify_all()
            if self._busy or self._waiting:
                callback(Progress("Uploading the checkpoint", 0, 1))
            while (self._busy or self._waiting) and time.monotonic() < until:
                self._changed.wait(1.0)
            if self._busy or self._waiting:
                self._notes.put(
                    Note(
                        f"The last checkpoint was not uploaded in {_PATIENCE:.0f} seconds; it is "
                        "on this disk.",
                        True,
                    )
                )
        self.report(callback)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None:
                    if self._over:
                        return
                    self._changed.wait()
                folder, self._waiting, self._busy = self._waiting, None, True
            try:
                self._upload(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _upload(self, folder: Path) -> None:
        files = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if path.suffix in _KINDS
        }
        step = json.loads(files[STATE].read_bytes())["step"]
        try:
            message = f"Checkpoint of step {step}"
            branch_storage.replace(self._repo_id, BRANCH, files, message, self._private)
        except Exception as error:  # whatever it is, the training goes on
            why = error.message if isinstance(error, HubloraError) else str(error)
            first = (why.splitlines() or [type(error).__name__])[0]
            if not self._failed:
                self._notes.put(
                    Note(
                        f"The checkpoint of step {step} is on this disk only: {first} "
                        "The next one will be tried again.",
                        True,
                    )
                )
            self._failed = True
            return
        self._failed = False
        self._notes.put(Note(f"Uploaded the checkpoint of step {step} to {self._repo_id}@{BRANCH}"))


@contextmanager
def background_upload(session: Session, callback: Callback) -> Iterator[CheckpointUploader | None]:
    """Yield the uploader, None without `checkpoint.to_hub`; wait for its uploads at the end."""
    if not (session.config.checkpoint.to_hub and session.accelerator.is_main_process):
        yield None
        return
    uploader = CheckpointUploader(session)
    try:
        yield uploader
    finally:
        uploader.finish(callback)


def describe_destination(repo_id: str, private: bool) -> str:
    """Return the branch that checkpoints are uploaded to, and whether it is public or private.

    Args:
        repo_id: owner/name.
        private: Visibility of the repo if it is to be created.

    Raises:
        HubError: The Hub is unreachable.
    """
    there = branch_storage.is_private(repo_id)
    seen = "private" if (private if there is None else there) else "public"
    made = ", to be created" if there is None else ""
    return f"{repo_id}@{BRANCH} ({seen}{made})"


def check_no_checkpoint(repo_id: str) -> None:
    """Check that a repo has no checkpoint of another training.

    Raises:
        ConfigError: There is one.
        HubError: The Hub is unreachable.
    """
    if (found := branch_storage.branch_snapshot(repo_id, BRANCH)) and STATE in found.files:
        raise ConfigError(
            f"{repo_id} has the checkpoint of another training.",
            f"Resume that: hublora train --resume {repo_id}. Or remove it: "
            f"hf repos branch delete {repo_id} {BRANCH}",
        )


def delete_hub_checkpoint(repo_id: str, callback: Callback) -> None:
    """Delete the checkpoint of a training whose result is pushed; report it if that fails."""
    try:
        branch_storage.remove(repo_id, BRANCH)
    except HubloraError as error:
        how = f"hf repos branch delete {repo_id} {BRANCH}"
        callback(Note(f"{repo_id} still has a checkpoint: {error.message} Remove it: {how}", True))


def _documents(session: Session) -> dict[str, str]:
    from hublora.cards.environment import describe_environment

    environment = describe_environment(session.accelerator.device.type)
    return {
        SETTINGS: json.dumps(recorded_settings(session), indent=2) + "\n",
        ENVIRONMENT: json.dumps(environment, indent=2) + "\n",
    }


def _link(file: Path, other: Path) -> None:
    other.parent.mkdir(exist_ok=True)
    try:
        os.link(file, other)
    except OSError:  # a file system without links
        shutil.copy(file, other)


def read_checkpoint_recipe(repo_id: str) -> Recipe:
    """Return the settings of the training whose checkpoint a repo has.

    Raises:
        NotFoundError: The repo has no checkpoint.
        ConfigError: The settings do not parse.
        HubError: The Hub is unreachable.
    """
    with temporary_folder("resume") as folder:
        found = _find(repo_id)
        branch_storage.fetch(repo_id, found, (SETTINGS, ENVIRONMENT), folder)
        try:
            settings, environment = (
                json.loads((folder / name).read_bytes()) for name in (SETTINGS, ENVIRONMENT)
            )
            own = own_settings(settings)
        except (ValueError, AttributeError, RecursionError) as error:
            raise _unreadable(repo_id, SETTINGS) from error
    pushes = own_settings({"pushes": settings.get("hub")}).get("pushes.push")
    # It is uploaded to the repo that it came from, whatever the settings say.
    hub = {"hub.model_id": repo_id, "hub.push": bool(pushes)}
    name = repo_id.split("/")[-1]
    known = environment if isinstance(environment, dict) else {}
    return Recipe(f"{repo_id}@{BRANCH}", name, own | hub, known)


def download_checkpoint(repo_id: str, near: Path) -> Path:
    """Download a repo's checkpoint into a hidden folder, and check its hashes.

    Args:
        repo_id: owner/name.
        near: A path, existing or not, on the disk to download to.

    Returns:
        Folder `checkpoint-<step>`, with the metrics log beside it.

    Raises:
        NotFoundError: The repo has no checkpoint.
        ConfigError: The checkpoint is damaged.
        HubError: The Hub is unreachable.
    """
    from hublora.training.checkpoint import EMBEDDINGS, OPTIMIZER, WEIGHTS, check_files

    found = _find(repo_id)
    names = [name for name in (STATE, WEIGHTS, EMBEDDINGS, OPTIMIZER) if name in found.files]
    hidden = Path(tempfile.mkdtemp(dir=nearest_folder(near), prefix=".checkpoint-"))
    try:
        folder = hidden / "files"
        branch_storage.fetch(repo_id, found, names, folder)
        branch_storage.fetch(repo_id, found, [HISTORY], hidden)
        for cache in (hidden, folder):
            shutil.rmtree(cache / ".cache", ignore_errors=True)
        step = check_files(folder, lambda name: _unreadable(repo_id, name))["step"]
        return folder.rename(hidden / f"checkpoint-{step}")
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def install_checkpoint(downloaded: Path, run: Path) -> Path:
    """Move a downloaded checkpoint into a run folder, whole or not at all."""
    from hublora.training.checkpoint import make_way

    history = (downloaded.parent / HISTORY).read_bytes()
    final = run / downloaded.name
    write_atomically(run / "training" / HISTORY, history)
    make_way(final)
    os.rename(downloaded, final)
    discard(downloaded)
    return final


def discard(downloaded: Path) -> None:
    """Delete a downloaded checkpoint."""
    shutil.rmtree(downloaded.parent, ignore_errors=True)


def _find(repo_id: str) -> RepoSnapshot:
    found = branch_storage.branch_snapshot(repo_id, BRANCH)
    if found is None or STATE not in found.files:
        raise NotFoundError(
            f"{repo_id} has no checkpoint: it has no branch {BRANCH!r}.",
            "A training with --checkpoint-to-hub uploads one, until its result is pushed.",
        )
    for name in (SETTINGS, ENVIRONMENT, HISTORY):
        if name not in found.files:
            raise _unreadable(repo_id, name)
    return found


def _unreadable(repo_id: str, name: str) -> ConfigError:
    return ConfigError(
        f"The checkpoint of {repo_id} is damaged: {name} is not what was written.",
        f"It cannot be resumed; remove it: hf repos branch delete {repo_id} {BRANCH}",
    )
