"""The steps of a training, with recording, saving, drawing and a person's Ctrl-C around them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.progress import Callback, FileWritten, Note, StepProgress
from hublora.refs import is_repo
from hublora.resolution.base import Base
from hublora.workflows.train.gallery import draw_preview
from hublora.workflows.train.signals import asked_to_stop, interrupted

if TYPE_CHECKING:
    from hublora.data import Source
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.held_out_loss import Measure
    from hublora.training.metrics_log import MetricsLog
    from hublora.training.session import Session
    from hublora.workflows.train.hub_checkpoint import CheckpointUploader

LATEST = "latest"
_AGREE_EVERY = 10  # steps between two times that several processes ask each other whether to stop
_TELL_EVERY = 0.5  # seconds between two reports of the loss, which wait for the device


def find_checkpoint(config: TrainingConfig, resume: str | None, callback: Callback) -> Path | None:
    """Return the checkpoint to go on from, None to start anew.

    Args:
        config: The settled settings.
        resume: "latest", a checkpoint's folder or its name, or a repo that keeps one; None starts
            anew.
        callback: Is told when there is none yet.

    Returns:
        It; that of a repo is not in the run folder yet.

    Raises:
        ConfigError: There is no checkpoint of that name, or nothing was to be resumed and the
            folder already holds a training.
    """
    from hublora.training.run_folder import STATE, list_checkpoints

    folder = config.run_folder
    found = list_checkpoints(folder)
    if resume is None:
        if found:
            raise ConfigError(
                f"{folder} already holds a training.",
                "Go on with it: --resume. Or start anew in another folder: --output-dir …",
            )
        return None
    if resume == LATEST:
        if not found:
            callback(Note(f"There is no checkpoint in {folder} yet; starting anew.", True))
        return found[-1] if found else None
    if is_repo(resume):
        from hublora.workflows.train.hub_checkpoint import download_checkpoint

        if found:
            raise ConfigError(
                f"{folder} already holds a training; {resume} is taken up in a new folder.",
                "Go on with the one here: --resume. Or name another folder: --output-dir …",
            )
        return download_checkpoint(resume, folder)
    path = Path(resume)
    for candidate in (path, *(one for one in found if one.name == path.name)):
        if (candidate / STATE).is_file():
            return candidate
    raise ConfigError(f"There is no checkpoint {resume}.", "Leave the name out for the latest.")


def open_history(session: Session) -> MetricsLog:
    """Return the record of a training, cut back to where it is; only the main process writes it."""
    from hublora.training.metrics_log import MetricsLog

    path = session.config.run_folder / "training" / "history.jsonl"
    return MetricsLog(path, session.step, writes=session.accelerator.is_main_process)


def train_to_end(
    session: Session,
    base: Base,
    source: Source,
    history: MetricsLog,
    callback: Callback,
    uploader: CheckpointUploader | None = None,
) -> float:
    """Train from `session.step` to the end; return the seconds that the steps took.

    Over 60 lines because metrics, previews, checkpoints and stops belong between the same steps.

    Args:
        session: The training.
        base: Base model of the run.
        source: Images of the run.
        history: Metrics of the run's steps.
        callback: Is told what happens.
        uploader: Is given every checkpoint.

    Raises:
        Interrupted: A person stopped it; a checkpoint was saved.
        ConfigError: It has diverged, or memory ran out.
    """
    from hublora.training.checkpoint import save_checkpoint
    from hublora.training.distributed import on_main
    from hublora.training.events import CheckpointDue, StepDone, ValidationDue
    from hublora.training.failures import explained
    from hublora.training.loop import train as train_steps
    from hublora.training.trackers import Trackers

    trackers = Trackers(session.accelerator, session.config.flat())

    def record() -> list[dict[str, Any]]:
        rows = history.flush()
        trackers.log(rows)
        return rows

    def save() -> Path:
        record()
        folder = on_main(lambda: save_checkpoint(session))
        if uploader is not None:
            uploader.submit(folder)
        return folder

    started = told = time.monotonic()
    away = 0.0  # seconds spent on images, which are not the training's
    try:
        with asked_to_stop() as stop, explained(session.config, session.data.size[0]):
            for event in train_steps(session):
                if isinstance(event, StepDone):
                    history.add(event)
                    if event.measure is not None:
                        callback(_measured(event.measure))
                    now = time.monotonic()
                    if now - told > _TELL_EVERY or event.step == session.total_steps:
                        told = now
                        _tell(record(), session, callback)
                        if uploader is not None:
                            uploader.tell(callback)
                elif isinstance(event, ValidationDue):
                    before = time.monotonic()
                    record()
                    sheet = on_main(lambda: draw_preview(session, base, source, callback))
                    trackers.show("validation", sheet, event.step)
                    callback(FileWritten("preview", sheet))
                    away += time.monotonic() - before
                elif isinstance(event, CheckpointDue):
                    callback(FileWritten("checkpoint", save()))
                if not session.is_over and _all_stop(session, stop):
                    raise interrupted(save(), uploader)
    finally:
        trackers.close()
    if session.step < session.total_steps:
        why = f"no better one in {session.config.holdout.patience} measures"
        callback(Note(f"Stopped after step {session.step}: {why} on the held-out images."))
    return time.monotonic() - started - away


def _measured(measure: Measure) -> Note:
    best = ", the best so far" if measure.is_best else ""
    return Note(f"Step {measure.step}: held-out loss {measure.loss:.4f}{best}")


def _tell(rows: Sequence[dict[str, Any]], session: Session, callback: Callback) -> None:
    if rows:
        loss = sum(row["loss"] for row in rows) / len(rows)
        last = rows[-1]
        callback(
            StepProgress(
                last["step"], session.total_steps, loss, last["lr"], last.get("token_embedding_lr")
            )
        )


def _all_stop(session: Session, stop: threading.Event) -> bool:
    """Tell whether to stop; several processes agree on it every few steps."""
    if session.accelerator.num_processes == 1:
        return stop.is_set()
    if session.step % _AGREE_EVERY:
        return False
    import torch

    asked = torch.tensor(float(stop.is_set()), device=session.accelerator.device)
    return bool(session.accelerator.reduce(asked, "sum") > 0)
