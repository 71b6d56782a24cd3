"""Generates batches: prompts × rows × columns ─ missing images ─▶ images, labelled sheets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hublora.adapter_weights import Weight
from hublora.errors import ConfigError
from hublora.generation.composition import Composition
from hublora.generation.generate import cell_facts, generate, save
from hublora.generation.options import (
    BatchOptions,
    LoadOptions,
    check_options,
    pick,
    pick_sampling,
)
from hublora.generation.outputs import check_output, slug
from hublora.generation.prompt_placeholders import TriggerMode
from hublora.generation.sample import sampling_for
from hublora.progress import Callback, Event, FileWritten, Note, Progress, no_callback
from hublora.workflows.load import load_pipeline, set_weights

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.sample import Sampling
    from hublora.generation.sweep_axes import Axis

# Facts that may differ between two equal images.
_PASSING = ("versions", "hublora", "device", "size")


@dataclass(frozen=True)
class Cell:
    """One image of a batch.

    Attributes:
        prompt: Index of the prompt, from 0.
        row: Index of the row in the prompt's sheet, from 0.
        column: Index of the column in the prompt's sheet, from 0.
        plan: Sampling settings of the image.
        weights: Weights of the adapters, in order.
    """

    prompt: int
    row: int
    column: int
    plan: Sampling
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class BatchItem:
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


def run_batch(
    refs: Sequence[str],
    prompts: Sequence[str],
    *,
    output: Path | None = None,
    rows: str | None = None,
    columns: str | None = None,
    callback: Callback = no_callback,
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

    Yields:
        Each image when it is written, and the sheets at the end.

    Raises:
        HubloraError: As `run`; ConfigError for an axis that does not parse.
    """
    from hublora.generation.sample import Sampling
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
    down = Axis.parse(rows, seed) if rows else None
    pipe = load_pipeline(refs, pick(options, LoadOptions), callback)
    cells = _plan(pipe, prompts, down, across, sampling)
    folder, images = output or Path(), []
    quiet = _once(callback)
    for index, cell in enumerate(cells):
        item, image = _generate_cell(pipe, cell, folder, trigger, quiet)
        callback(Progress("Images", index + 1, len(cells)))
        images.append(image)
        yield item
    if options.get("grid") or rows or columns:
        for number, prompt in enumerate(prompts):
            mine = [(c, i) for c, i in zip(cells, images, strict=True) if c.prompt == number]
            path = _write_sheet(folder, prompt, mine, down, across, pipe.hublora)
            callback(FileWritten("sheet", path))
            yield BatchItem(path, False, prompt)


def read_prompts(lines: Sequence[str]) -> list[str]:
    """Return the prompts in the lines of a file, without empty and repeated ones.

    Raises:
        ConfigError: The file has no prompts.
    """
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError("The file has no prompts.", "Write one on each line.")
    return list(dict.fromkeys(prompts))


def _plan(
    pipe: Any,
    prompts: Sequence[str],
    down: Axis | None,
    across: Axis,
    sampling: Mapping[str, Any],
) -> list[Cell]:
    """Return every cell, checked against the pipeline before anything is generated."""
    from hublora.generation.sample import check_plan, use_scheduler

    composition: Composition = pipe.hublora
    sampling = {"scheduler": composition.scheduler, **sampling}
    step = composition.base.family.size_step(pipe)
    cells = []
    for number, prompt in enumerate(prompts):
        typed = composition.lock.fill(prompt) if composition.lock else prompt
        composition.expand(typed)
        base = sampling_for(composition.base, typed, **sampling)
        for row, below in enumerate(down.values if down else [""]):
            for column, beside in enumerate(across.values):
                plan, weights = base, [part.weight for part in composition.adapters]
                for axis, value in ((down, below), (across, beside)):
                    if axis is not None:
                        plan = axis.apply(plan, value)
                        _set_weight(weights, axis, value)
                cells.append(Cell(number, row, column, plan, tuple(weights)))
    for cell in cells:
        use_scheduler(pipe, cell.plan.scheduler)
        check_plan(pipe, step, cell.plan)
    return cells


def _set_weight(weights: list[Weight], axis: Axis, value: str) -> None:
    if axis.adapter is None:
        return
    if axis.adapter >= len(weights):
        raise ConfigError(
            f"The axis {axis.name} names adapter {axis.adapter + 1} of {len(weights)}.",
            "Adapters are counted from 1: weight.1, weight.2, …",
        )
    weights[axis.adapter] = Weight.of(float(value))


def _generate_cell(
    pipe: Any, cell: Cell, folder: Path, trigger: TriggerMode, callback: Callback
) -> tuple[BatchItem, Image.Image]:
    from PIL import Image

    from hublora.generation.sample import use_scheduler

    set_weights(pipe, cell.weights)
    facts = _stable(cell_facts(pipe.hublora, cell.plan, trigger))
    path = folder / f"{slug(cell.plan.prompt)}-{cell.plan.seed}-{_digest(facts)}.png"
    if _exists(path, facts):
        with Image.open(path) as existing:
            return BatchItem(path, True, cell.plan.prompt, cell.plan.seed), existing.copy()
    use_scheduler(pipe, cell.plan.scheduler)
    (image,) = generate(pipe, [cell.plan], trigger, callback)
    save(image, path, pipe.hublora, cell.plan, trigger)
    return BatchItem(path, False, cell.plan.prompt, cell.plan.seed), image


def _exists(path: Path, facts: Mapping[str, Any]) -> bool:
    """Tell whether an undamaged image with these facts exists."""
    from hublora.generation.metadata import read_image

    try:
        return path.is_file() and _stable(read_image(path)) == facts
    except (OSError, ValueError, SyntaxError):
        return False  # damaged: generated anew


def _stable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that determine an image, as JSON values."""
    stable = {key: value for key, value in facts.items() if key not in _PASSING}
    return json.loads(json.dumps(stable))


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _write_sheet(
    folder: Path,
    prompt: str,
    generated: Sequence[tuple[Cell, Image.Image]],
    down: Axis | None,
    across: Axis,
    composition: Composition,
) -> Path:
    from hublora.generation.metadata import save_image
    from hublora.image_grid import sheet

    images: list[list[Image.Image]] = []
    for cell, image in generated:
        if cell.row == len(images):
            images.append([])
        images[cell.row].append(image)
    laid_out = sheet(
        images,
        row_labels=[down.label(value) for value in down.values] if down else None,
        column_labels=[across.label(value) for value in across.values],
        title=prompt,
    )
    named = _digest({"cells": [cell.plan.facts() for cell, _ in generated], **composition.facts()})
    path = folder / f"{slug(prompt)}-sheet-{named}.png"
    save_image(laid_out, path, {"sampling": {"prompt": prompt}})
    return path


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
