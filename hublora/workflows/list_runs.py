"""Lists trainings: folder ─ files of each run ─▶ state, step and loss, and a sheet of images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hublora.adapters.header import read_file_header
from hublora.errors import AdapterError, ConfigError, NotFoundError
from hublora.filesystem import is_locked
from hublora.generation.metadata import read_image, save_image
from hublora.generation.outputs import check_output, check_replaceable
from hublora.hub.repo_layout import CARD, LEARNED_EMBEDDINGS, SETTINGS, WEIGHTS
from hublora.notebook import NotebookResult
from hublora.training.config.training_config import flatten, read_settings_file
from hublora.training.run_folder import (
    CHECKPOINT,
    HISTORY,
    PREVIEWS,
    STATE,
    list_checkpoints,
    read_history,
    resume_command,
)
from hublora.workflows.train.run_settings import read_run_settings

if TYPE_CHECKING:
    from PIL import Image

State = Literal["finished", "running", "stopped", "broken"]

_SOURCES = ("data.dataset", "data.folder", "data.archive")
_IMAGES = 4  # most images of a run on a sheet
_GALLERY = "validation.png"


@dataclass(frozen=True)
class FoundRun(NotebookResult):
    """State of a training, read from its run folder.

    Attributes:
        folder: Run folder.
        state: "finished"; "running", locked by a process; "stopped" before its last step; or
            "broken".
        problem: Sentence about what is broken or missing; None if nothing is.
        step: Last recorded optimizer step, from 0.
        steps: Optimizer steps of the whole training; None if not recorded.
        result_step: Step whose weights are the result; None without a result.
        loss: Mean loss over the last tenth of the recorded steps; None without steps.
        held_out: Lowest loss on held-out images; None if not measured.
        base: Repo id or folder of the base; None if not recorded.
        dataset: Repo id, folder or archive of the images; None if not recorded.
        size: Bytes of the adapter file, else of that in the newest checkpoint; None without both.
        disk: Bytes of all files in the run folder.
        image: Path of the gallery sheet, else of the newest preview; None without both.
        resume: Command that resumes a stopped training; None for the others.
    """

    folder: Path
    state: State
    problem: str | None
    step: int
    steps: int | None
    result_step: int | None
    loss: float | None
    held_out: float | None
    base: str | None
    dataset: str | None
    size: int | None
    disk: int
    image: Path | None
    resume: str | None

    @property
    def shown_image(self) -> Path | None:
        """Path of the image that a notebook shows; None without one."""
        return self.image


def list_runs(folder: Path) -> list[FoundRun]:
    """Return the trainings in or below a folder, in the order of their paths.

    Raises:
        NotFoundError: The folder does not exist.
    """
    if not folder.is_dir():
        raise NotFoundError(f"The folder {folder} does not exist.", "Name the folder of the runs.")
    return [_read_run(run) for run in _run_folders(folder)]


def runs_sheet(runs: Sequence[FoundRun]) -> Image.Image:
    """Return a sheet with one row of images per run that has any, each above its prompt.

    Raises:
        NotFoundError: No run has an image.
    """
    from PIL import Image

    from hublora.image_grid import sheet

    rows, labels, captions = [], [], []
    for run in runs:
        images, paths = [], _images(run)
        for path in paths:
            with Image.open(path) as image:
                images.append(image.convert("RGB"))
        if images:
            rows.append(images)
            captions.append([_caption(path) for path in paths])
            labels.append(f"{run.folder.name}: {progress(run)}, {run.state}")
    if not rows:
        raise NotFoundError("None of these runs has an image yet.", "Leave --sheet out.")
    return sheet(rows, row_labels=labels, captions=captions)


def write_runs_sheet(runs: Sequence[FoundRun], path: Path) -> None:
    """Write the sheet of `runs_sheet` as a PNG.

    Raises:
        ConfigError: The path is no .png file, or a file is there that hublora did not write.
        NotFoundError: No run has an image.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--sheet must be a .png file, got {path}.", f"Name {path}.png.")
    check_output(path)
    check_replaceable(path)
    save_image(runs_sheet(runs), path, {"runs": [run.folder.name for run in runs]})


def _caption(path: Path) -> str:
    """Return an image's prompt and seed; empty if it does not record them."""
    try:
        sampling = read_image(path).get("sampling")
    except ConfigError:
        sampling = None
    if not isinstance(sampling, dict) or "prompt" not in sampling:
        return ""
    return f"{sampling['prompt']} (seed\N{NO-BREAK SPACE}{sampling.get('seed', 0)})"


def progress(run: FoundRun) -> str:
    """Return step and loss of a run as text, e.g. "step 4/6, loss 0.1234"."""
    steps = f"step {run.step}" if run.steps in (None, run.step) else f"step {run.step}/{run.steps}"
    return steps if run.loss is None else f"{steps}, loss {run.loss:.4f}"


def _run_folders(folder: Path) -> Iterator[Path]:
    for here, below, files in os.walk(folder):
        run = Path(here)
        if _is_run(run, below, files):
            below.clear()
            yield run
        below[:] = sorted(name for name in below if not name.startswith("."))


def _is_run(folder: Path, below: Sequence[str], files: Sequence[str]) -> bool:
    if any(name.startswith(CHECKPOINT) for name in below):
        return True
    return (folder / HISTORY).is_file() or (
        (WEIGHTS in files or LEARNED_EMBEDDINGS in files) and (folder / SETTINGS).is_file()
    )


def _read_run(folder: Path) -> FoundRun:
    rows = read_history(folder / HISTORY)
    losses = [row["loss"] for row in rows if isinstance(row.get("loss"), float)]
    last = losses[-max(1, len(losses) // 10) :]
    held_out = [row["held_out"] for row in rows if isinstance(row.get("held_out"), float)]
    adapter = _adapter(folder)
    run = FoundRun(
        folder=folder,
        state="running" if is_locked(folder) else "stopped",
        problem=None,
        step=max((row["step"] for row in rows), default=0),
        steps=None,
        result_step=None,
        loss=sum(last) / len(last) if last else None,
        held_out=min(held_out, default=None),
        base=None,
        dataset=None,
        size=adapter.stat().st_size if adapter is not None else None,
        disk=sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()),
        image=_image(folder),
        resume=None,
    )
    try:
        run = _with_settings(run, adapter)
        resume = resume_command(folder) if run.state == "stopped" else None
        return replace(run, resume=resume)
    except (ConfigError, AdapterError) as error:
        # A running process may be writing this file now: not broken.
        state: State = "running" if run.state == "running" else "broken"
        return replace(run, state=state, problem=error.message)


def _with_settings(run: FoundRun, adapter: Path | None) -> FoundRun:
    """Return the run with the settings of its result, else of its newest checkpoint.

    Raises:
        AdapterError: The adapter is damaged or missing.
        ConfigError: The settings do not parse.
    """
    metadata = read_file_header(adapter).metadata if adapter is not None else {}
    checkpoints = list_checkpoints(run.folder)
    finished = (run.folder / CARD).is_file() and (run.folder / SETTINGS).is_file()
    if finished and run.state != "running":
        settings: dict[str, Any] = flatten(read_settings_file(run.folder / SETTINGS))
        result_step = metadata.get("hublora.steps", "")
        run = replace(
            run,
            state="finished",
            result_step=int(result_step) if result_step.isdecimal() else run.step,
        )
        if adapter is None:
            raise AdapterError("The adapter file is missing.")
    elif checkpoints:
        settings = _newest_settings(checkpoints)
        run = replace(run, step=max(run.step, _step(checkpoints[-1])))
    else:
        problem = None if run.state == "running" else "No checkpoint was saved."
        settings, run = read_run_settings(run.folder) or {}, replace(run, problem=problem)
    steps = settings.get("schedule.max_train_steps")
    source = next((v for k in _SOURCES if (v := settings.get(k))), None)
    return replace(
        run,
        steps=run.step if run.state == "finished" else steps,
        base=settings.get("base.model"),
        dataset=source,
    )


def _newest_settings(checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Return the settings in the newest checkpoint; if it is damaged, the error names another."""
    try:
        return _settings_of(checkpoints[-1])
    except (AdapterError, ConfigError) as error:
        if len(checkpoints) > 1:
            newest, before = checkpoints[-1].name, checkpoints[-2].name
            error.message += f" Delete {newest} to go on from {before}."
        raise


def _settings_of(checkpoint: Path) -> dict[str, Any]:
    """Return the settings in a checkpoint, after a check of its files.

    Raises:
        AdapterError: A file is missing or damaged.
        ConfigError: The state does not parse.
    """
    try:
        state = json.loads((checkpoint / STATE).read_bytes())
        names, settings = list(state["sha256"]), dict(state["settings"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{checkpoint.name}/{STATE} does not parse.") from error
    for name in names:
        if not (checkpoint / name).is_file():
            raise AdapterError(f"{checkpoint.name}/{name} is missing.")
        if name.endswith(".safetensors") and not _is_whole(checkpoint / name):
            raise AdapterError(f"{checkpoint.name}/{name} is damaged.")
    return settings


def _is_whole(path: Path) -> bool:
    try:
        read_file_header(path)
    except AdapterError:
        return False
    return True


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(CHECKPOINT))


def _adapter(folder: Path) -> Path | None:
    """Return the path of the trained weights: the result, else those of the newest checkpoint."""
    places = [folder, *reversed(list_checkpoints(folder))]
    paths = (place / name for place in places for name in (WEIGHTS, LEARNED_EMBEDDINGS))
    return next((path for path in paths if path.is_file()), None)


def _image(folder: Path) -> Path | None:
    gallery = folder / "images" / _GALLERY
    previews = sorted(folder.glob(f"{PREVIEWS}/*.png"))
    return gallery if gallery.is_file() else previews[-1] if previews else None


def _images(run: FoundRun) -> list[Path]:
    """Return the paths of the gallery's first images, else of the newest preview."""
    gallery = sorted(run.folder.glob("images/[0-9]*.png"), key=lambda path: (len(path.name), path))
    return gallery[:_IMAGES] or ([run.image] if run.image else [])
