"""Generates batches: prompts × rows × columns ─ missing images ─▶ images, labelled sheets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hublora.errors import ConfigError
from hublora.generation.composition import Composition
from hublora.generation.generate import generate, image_facts, save
from hublora.generation.inputs import Inputs
from hublora.generation.options import (
    BatchOptions,
    LoadOptions,
    check_options,
    pick,
    pick_sampling,
)
from hublora.generation.outputs import check_output, own_path, slug
from hublora.generation.prompt_placeholders import TriggerMode
from hublora.notebook import NotebookResult
from hublora.progress import Callback, Event, FileWritten, Note, Progress, default_callback
from hublora.workflows.load import load_pipeline, set_weights

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.conditions import Conditions
    from hublora.generation.sample import Sampling
    from hublora.generation.sheet import Cell, SheetAxes

# Facts that may differ between two equal images.
_PASSING = ("versions", "hublora", "device", "size")


@dataclass(frozen=True)
class BatchItem(NotebookResult):
    """A file of a batch.

    Attributes:
        path: Path of the file.
        skipped: Whether it existed already.
        prompt: Prompt of the image or sheet.
        seed: Seed of the image; None for a sheet.
    """

    path: Path
    skipped: bool
    prompt: str
    seed: int | None = None

    @property
    def shown_image(self) -> Path | None:
        """Path of the image that a notebook shows."""
        return self.path


def run_batch(
    refs: Sequence[str],
    prompts: Sequence[str],
    *,
    output: Path | None = None,
    rows: str | None = None,
    columns: str | None = None,
    callback: Callback = default_callback,
    **options: Unpack[BatchOptions],
) -> Iterator[BatchItem]:
    """Generate every prompt at every row and column, except images that exist in the folder.

    Args:
        refs: Adapter refs with their weights.
        prompts: Prompts of the images.
        output: Folder of the images; the current one by default.
        rows: Axis of the rows (`hublora.generation.sweep_axes`), e.g. "weight=0..1:5".
        columns: Axis of the columns; `num_images` seeds by default.
        callback: Called with each event (`hublora.progress.Event`).
        options: Keywords of `load`, sampling keywords and `trigger` of `run`, and the following.
        num_images: Number of seeds where no axis is "seed"; 1 by default.
        grid: Write a sheet for each prompt even without rows and columns.
        reference: Reference images of an edit model, in order, or one; the same for all images.

    Yields:
        Each image when it is written, and the sheets at the end.

    Raises:
        HubloraError: As `run`; ConfigError for an axis that does not parse.
    """
    from hublora.generation.sample import Sampling
    from hublora.generation.sheet import SheetAxes, save_sheet
    from hublora.generation.sweep_axes import Axis

    check_options(options, BatchOptions, run_batch)
    sampling = pick_sampling(options)
    for prompt in prompts:
        Sampling(prompt, **sampling)  # checked before anything is loaded
    if output is not None and output.suffix:
        raise ConfigError(
            f"A batch needs a folder, got the file {output}.", "Name a folder: -o FOLDER"
        )
    check_output(output)
    seed, trigger = sampling.get("seed", 0), options.get("trigger", "auto")
    across = Axis.parse(columns or f"seed={options.get('num_images', 1)}", seed)
    axes = SheetAxes(across, Axis.parse(rows, seed) if rows else None)
    inputs = Inputs(reference=options.get("reference", ())).open()
    conditions = inputs.conditions
    loading = pick(options, LoadOptions)
    pipe = load_pipeline(refs, loading, callback, check_inputs=inputs.check_family)
    plans = _plans(pipe, prompts, axes, sampling)
    folder, quiet = output or Path(), _once(callback)
    total = sum(len(cells) for _, cells in plans)
    # Before any weight is varied.
    stated = [image_facts(pipe.hublora, plan, trigger, conditions) for plan, _ in plans]
    sheets, done = [], 0
    for (plan, cells), facts in zip(plans, stated, strict=True):
        images = []
        for cell in cells:
            item, image = _generate_cell(pipe, cell, folder, trigger, quiet, conditions)
            done += 1
            callback(Progress("Images", done, total))
            images.append(image)
            yield item
        sheets.append((plan, facts, images))
    if options.get("grid") or rows or columns:
        for plan, facts, images in sheets:
            named = _digest(_stable({**facts, "sheet": axes.facts()}))
            path = own_path(folder / f"{slug(plan.prompt)}-sheet-{named}.png", lambda _: False)
            save_sheet(path, axes, images, pipe.hublora, facts)
            callback(FileWritten("sheet", path))
            yield BatchItem(path, False, plan.prompt)


def read_prompts(lines: Sequence[str]) -> list[str]:
    """Return the prompts in the lines of a file, without empty and repeated ones.

    Raises:
        ConfigError: The file has no prompts.
    """
    # Editors on Windows begin a file with a byte order mark.
    prompts = [line.strip() for line in (line.lstrip("\ufeff") for line in lines) if line.strip()]
    if not prompts:
        raise ConfigError("The file has no prompts.", "Write one on each line.")
    return list(dict.fromkeys(prompts))


def _plans(
    pipe: Any, prompts: Sequence[str], axes: SheetAxes, sampling: Mapping[str, Any]
) -> list[tuple[Sampling, list[Cell]]]:
    """Return each prompt's settings and cells, checked before anything is generated."""
    from hublora.generation.sample import check_plan, sampling_with, use_scheduler_of

    composition: Composition = pipe.hublora
    if composition.speed is None or composition.speed.scheduler is None:
        sampling = {"scheduler": composition.scheduler, **sampling}
    weights = [part.weight for part in composition.adapters]
    plans = []
    for prompt in prompts:
        typed = composition.lock.fill(prompt) if composition.lock else prompt
        composition.expand(typed)
        plan = sampling_with(composition, typed, **sampling)
        plans.append((plan, axes.cells(plan, weights)))
    step = composition.base.family.size_step(pipe)
    for _, cells in plans:
        for cell in cells:
            use_scheduler_of(pipe, cell.plan)
            check_plan(pipe, step, cell.plan)
    return plans


def _generate_cell(
    pipe: Any,
    cell: Cell,
    folder: Path,
    trigger: TriggerMode,
    callback: Callback,
    conditions: Conditions,
) -> tuple[BatchItem, Image.Image]:
    from PIL import Image

    from hublora.generation.sample import use_scheduler_of

    set_weights(pipe, cell.weights)
    facts = _stable(image_facts(pipe.hublora, cell.plan, trigger, conditions))
    path = own_path(
        folder / f"{slug(cell.plan.prompt)}-{cell.plan.seed}-{_digest(facts)}.png",
        lambda found: _exists(found, facts),
    )
    if _exists(path, facts):
        with Image.open(path) as existing:
            return BatchItem(path, True, cell.plan.prompt, cell.plan.seed), existing.copy()
    use_scheduler_of(pipe, cell.plan)
    (image,) = generate(pipe, [cell.plan], trigger, callback, conditions)
    save(image, path, pipe.hublora, cell.plan, trigger, conditions)
    return BatchItem(path, False, cell.plan.prompt, cell.plan.seed), image


def _exists(path: Path, facts: Mapping[str, Any]) -> bool:
    """Tell whether an undamaged image with these facts exists."""
    from PIL import Image

    from hublora.generation.metadata import read_image

    try:
        if not path.is_file() or _stable(read_image(path)) != facts:
            return False
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError):
        return False  # damaged: generated anew
    return True


def _stable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that determine an image, as JSON values."""
    stable = {key: value for key, value in facts.items() if key not in _PASSING}
    return json.loads(json.dumps(stable))


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _once(callback: Callback) -> Callback:
    """Return a callback that forwards each note once, and no progress of single images."""
    seen: set[str] = set()

    def forward(event: Event) -> None:
        if isinstance(event, Progress):
            return
        if isinstance(event, Note):
            if event.text in seen:
                return
            seen.add(event.text)
        callback(event)

    return forward
