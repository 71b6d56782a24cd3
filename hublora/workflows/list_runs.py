"""Look at trainings: folder ─ what is on the disk ─▶ how far each is, and a sheet of them all."""

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
from hublora.hub.repo_layout import CARD, LEARNED_EMBEDDINGS, SETTINGS, WEIGHTS
from hublora.training.config.training_config import flatten, read_settings_file
from hublora.training.run_folder import (
    CHECKPOINT,
    HISTORY,
    STATE,
    list_checkpoints,
    read_history,
)

if TYPE_CHECKING:
    from PIL import Image

State = Literal["finished", "running", "stopped", "broken"]

_SOURCES = ("data.dataset", "data.folder", "data.archive")
_IMAGES = 4  # of a run on a sheet
_GALLERY = "validation.png"


@dataclass(frozen=True)
class FoundRun:
    """A training, as its folder shows it.

    Attributes:
        folder: Folder of the run.
        state: "finished"; "running" in some process now; "stopped" on the way; or "broken".
        problem: Sentence about what is broken or missing; None if nothing is.
        step: Optimizer steps that are recorded.
        steps: How many there are to be; None if that is not recorded.
        loss: Mean over the last tenth of the recorded steps.
        held_out: Lowest loss on held-out images.
        base: Name of the base.
        dataset: Name of the images' source.
        size: Bytes of the adapter, of the newest checkpoint's where there is no other.
        disk: Bytes of everything in the folder.
        image: The gallery's sheet, or the newest preview.
    """

    folder: Path
    state: State
    problem: str | None
    step: int
    steps: int | None
    loss: float | None
    held_out: float | None
    base: str | None
    dataset: str | None
    size: int | None
    disk: int
    image: Path | None


def list_runs(folder: Path) -> list[FoundRun]:
    """Return the trainings in or below a folder, by name.

    Raises:
        NotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}.", "Name the one that the runs are in.")
    return [_look(run) for run in _run_folders(folder)]


def runs_sheet(runs: Sequence[FoundRun]) -> Image.Image:
    """Return one image with a row of images for each run that has any.

    Raises:
        NotFoundError: None has.
    """
    from PIL import Image

    from hublora.image_grid import sheet

    rows, labels = [], []
    for run in runs:
        images = []
        for path in _images(run):
            with Image.open(path) as image:
                images.append(image.convert("RGB"))
        if images:
            rows.append(images)
            labels.append(f"{run.folder.name}: {progress(run)}, {run.state}")
    if not rows:
        raise NotFoundError("None of these runs has an image yet.", "Leave --sheet out.")
    return sheet(rows, row_labels=labels)


def progress(run: FoundRun) -> str:
    """Return how far a run is, for people."""
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


def _look(folder: Path) -> FoundRun:
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
        loss=sum(last) / len(last) if last else None,
        held_out=min(held_out, default=None),
        base=None,
        dataset=None,
        size=adapter.stat().st_size if adapter is not None else None,
        disk=sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()),
        image=_image(folder),
    )
    try:
        return _with_settings(run, adapter)
    except (ConfigError, AdapterError) as error:
        # What a running process is just writing is not broken.
        state: State = "running" if run.state == "running" else "broken"
        return replace(run, state=state, problem=error.message)


def _with_settings(run: FoundRun, adapter: Path | None) -> FoundRun:
    """Return the run with what its result or its newest checkpoint says.

    Raises:
        AdapterError: The adapter is damaged.
        ConfigError: The settings are.
    """
    if adapter is not None:
        read_file_header(adapter)
    checkpoints = list_checkpoints(run.folder)
    finished = (run.folder / CARD).is_file() and (run.folder / SETTINGS).is_file()
    if finished and run.state != "running":
        settings: dict[str, Any] = flatten(read_settings_file(run.folder / SETTINGS))
        run = replace(run, state="finished")
        if adapter is None:
            raise AdapterError("The adapter is not there.")
    elif checkpoints:
        settings = _newest_settings(checkpoints)
        run = replace(run, step=max(run.step, _step(checkpoints[-1])))
    else:
        told = None if run.state == "running" else "No checkpoint was saved."
        return replace(run, problem=told)
    steps = settings.get("schedule.max_train_steps")
    source = next((v for k in _SOURCES if (v := settings.get(k))), None)
    return replace(
        run,
        steps=run.step if run.state == "finished" else steps,
        base=settings.get("base.model"),
        dataset=source,
    )


def _newest_settings(checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Return the settings in the newest checkpoint; if it is damaged, say from where it goes on."""
    try:
        return _settings_of(checkpoints[-1])
    except (AdapterError, ConfigError) as error:
        if len(checkpoints) > 1:
            newest, before = checkpoints[-1].name, checkpoints[-2].name
            error.message += f" Delete {newest} to go on from {before}."
        raise


def _settings_of(checkpoint: Path) -> dict[str, Any]:
    """Return the settings in a checkpoint whose files are whole.

    Raises:
        AdapterError: A file of it is damaged.
        ConfigError: Its state does not parse.
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
    """Return what a run has learned: the result, else that of the newest checkpoint."""
    places = [folder, *reversed(list_checkpoints(folder))]
    paths = (place / name for place in places for name in (WEIGHTS, LEARNED_EMBEDDINGS))
    return next((path for path in paths if path.is_file()), None)


def _image(folder: Path) -> Path | None:
    gallery = folder / "images" / _GALLERY
    previews = sorted(folder.glob("previews/*.png"))
    return gallery if gallery.is_file() else previews[-1] if previews else None


def _images(run: FoundRun) -> list[Path]:
    """Return the first images of a run's gallery, else its newest preview."""
    gallery = sorted(run.folder.glob("images/[0-9]*.png"), key=lambda path: (len(path.name), path))
    return gallery[:_IMAGES] or ([run.image] if run.image else [])
