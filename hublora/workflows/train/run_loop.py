"""The steps of a training: consumes the loop's events for log, previews, checkpoints and Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import Interrupted
from hublora.progress import Callback, FileWritten, Note, StepProgress
from hublora.quoting import shell_path
from hublora.resolution.base import Base
from hublora.workflows.train.gallery import generate_preview
from hublora.workflows.train.long_run import LongRun
from hublora.workflows.train.signals import ClosableCallback, asked_to_stop, interrupted

if TYPE_CHECKING:
    from hublora.data import Source
    from hublora.training.held_out_loss import Measure
    from hublora.training.metrics_log import MetricsLog
    from hublora.training.session import Session
    from hublora.workflows.train.hub_checkpoint import CheckpointUploader

_AGREE_EVERY = 10  # steps after which several processes agree on whether to stop
_REPORT_EVERY = 0.5  # seconds between two reports of the loss, which wait for the device


def open_history(session: Session) -> MetricsLog:
    """Return the metrics log, cut back to the session's step; only the main process writes it."""
    from hublora.training.metrics_log import MetricsLog

    path = session.config.run_folder / "training" / "history.jsonl"
    return MetricsLog(path, session.step, writes=session.accelerator.is_main_process)


def train_to_end(
    session: Session,
    base: Base,
    source: Source,
    history: MetricsLog,
    callback: ClosableCallback,
    uploader: CheckpointUploader | None = None,
) -> float:
    """Train from `session.step` to the end; return the seconds of the steps, without previews.

    Args:
        session: Session before its next step.
        base: Base of the session.
        source: Images of the session.
        history: Metrics log that steps are added to.
        callback: Called with each event (`hublora.progress.Event`).
        uploader: Uploads every checkpoint; None uploads none.

    Raises:
        Interrupted: Ctrl-C, SIGTERM, SIGHUP or a closed stderr; a checkpoint was saved.
        ConfigError: The training has diverged, or memory or the disk is exhausted.
    """
    # Over 60 lines because metrics, previews, checkpoints and stops belong between the same steps.
    from hublora.training.checkpoint import save_checkpoint
    from hublora.training.config.training_config import flatten
    from hublora.training.distributed import on_main
    from hublora.training.events import CheckpointDue, StepDone, ValidationDue
    from hublora.training.failures import explained
    from hublora.training.loop import train as train_steps
    from hublora.training.trackers import Trackers

    trackers = Trackers(session.accelerator, flatten(session.config.shareable()))

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

    started = reported = time.monotonic()
    previews = 0.0  # seconds spent on previews
    long_run = LongRun(session.total_steps)
    try:
        with (
            asked_to_stop() as stop,
            explained(session.config, session.data.size[0]),
            _saved_on_failure(session, save),
        ):
            for event in train_steps(session):
                if isinstance(event, StepDone):
                    history.add(event)
                    if event.measure is not None:
                        callback(_measured(event.measure))
                    now = time.monotonic()
                    if now - reported > _REPORT_EVERY or event.step == session.total_steps:
                        reported = now
                        _report(record(), session, callback)
                        if note := long_run.note(event.step, time.monotonic() - previews):
                            callback(note)
                        if uploader is not None:
                            uploader.report(callback)
                elif isinstance(event, ValidationDue):
                    before = time.monotonic()
                    record()
                    sheet = on_main(lambda: generate_preview(session, base, source, callback))
                    trackers.log_image("validation", sheet, event.step)
                    callback(FileWritten("preview", sheet))
                    previews += time.monotonic() - before
                elif isinstance(event, CheckpointDue):
                    callback(FileWritten("checkpoint", save()))
                if not session.is_over and _all_stop(session, stop.is_set() or callback.is_closed):
                    raise interrupted(save(), uploader.command if uploader else None)
    finally:
        trackers.close()
    if session.step < session.total_steps:
        why = f"no lower held-out loss in {session.config.holdout.patience} measures"
        callback(Note(f"Stopped early after step {session.step}: {why}."))
    return time.monotonic() - started - previews


@contextmanager
def _saved_on_failure(session: Session, save: Callable[[], object]) -> Iterator[None]:
    """Save a checkpoint of the steps so far if anything fails, before the exception goes on.

    A divergence is in the weights already, and a full disk has no place for a checkpoint. One of
    several processes saves nothing, since the others do not know of its failure.
    """
    from hublora.training.failures import Diverged

    first = session.step
    try:
        yield
    except (Diverged, OSError, Interrupted):
        raise
    except Exception:
        if session.step > first and session.accelerator.num_processes == 1:
            # What broke the step may break this too; it is the step's exception that counts.
            with suppress(Exception):
                save()
        raise


def result_note(session: Session) -> Note | None:
    """Return the sentence that says which step's weights are the result, after `finalize`; None
    where the last step has the lowest held-out loss or none was measured."""
    rise, best = session.loss_after_best, session.best_step
    if rise is None:
        return None
    last, by = f"step {session.step}", f"{rise.mean:.4f} ± {rise.error:.4f}"
    if session.result_step == session.step:
        why = (
            f"held-out loss is higher than the lowest one, of step {best}, by {by}"
            if rise.is_clear
            else f"held-out loss is that of step {best}, the lowest one, within the error of the "
            f"measure ({by})"
        )
        return Note(f"The result is the last step, {session.step}: its {why}.")
    folder = shell_path(session.config.run_folder / f"checkpoint-{session.step}")
    return Note(
        f"The result is step {session.result_step}: the held-out loss of the last step, "
        f"{session.step}, is higher by {by}. The weights of {last} are in {folder}."
    )


def _measured(measure: Measure) -> Note:
    best = ", the best so far" if measure.is_best else ""
    return Note(f"Step {measure.step}: held-out loss {measure.loss:.4f}{best}")


def _report(rows: Sequence[dict[str, Any]], session: Session, callback: Callback) -> None:
    if rows:
        loss = sum(row["loss"] for row in rows) / len(rows)
        last = rows[-1]
        callback(
            StepProgress(
                last["step"], session.total_steps, loss, last["lr"], last.get("token_embedding_lr")
            )
        )


def _all_stop(session: Session, asked: bool) -> bool:
    """Tell whether to stop because this process, or another one, was asked to; several processes
    agree every few steps."""
    if session.accelerator.num_processes == 1:
        return asked
    if session.step % _AGREE_EVERY:
        return False
    import torch

    any_asked = torch.tensor(float(asked), device=session.accelerator.device)
    return bool(session.accelerator.reduce(any_asked, "sum") > 0)
