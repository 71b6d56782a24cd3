"""Replay: image ─ its own metadata ─▶ the same refs, settings and seed ─▶ the image again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hublora._version import __version__
from hublora.data.images import load_image
from hublora.errors import ConfigError, DataError, NotFoundError
from hublora.filesystem import sha256_of
from hublora.generation.generate import generate, image_facts, library_versions, save
from hublora.generation.inputs import OpenedInputs, restore_inputs
from hublora.generation.options import (
    InputOptions,
    LoadOptions,
    ReplayOptions,
    check_options,
    pick,
)
from hublora.generation.outputs import check_output, check_replaceable, output_paths, unused
from hublora.generation.recorded import RecordedAdapter, RecordedImage, read_recorded
from hublora.generation.sample import check_plan, image_difference, use_scheduler_of
from hublora.generation.sheet import SheetAxes, save_sheet
from hublora.hub.repo_layout import LEARNED_EMBEDDINGS, WEIGHTS
from hublora.hub.urls import public_addresses_only
from hublora.notebook import NotebookResult
from hublora.progress import Callback, Event, FileWritten, Note, Progress, default_callback
from hublora.refs import AdapterRef, is_single_file
from hublora.resolution.adapter import download_adapter
from hublora.workflows.load import load_pipeline, set_weights

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Replayed(NotebookResult):
    """An image that was made again.

    Attributes:
        path: Path of the new image.
        drift: Differences to the recorded setup, one sentence each.
        difference: Mean difference to the old image in 8-bit levels; None with another seed.
    """

    path: Path
    drift: tuple[str, ...]
    difference: float | None

    @property
    def shown_image(self) -> Path | None:
        """Path of the image that a notebook shows."""
        return self.path


def replay(
    png: Path | str,
    *,
    seed: int | None = None,
    output: Path | str | None = None,
    adapters: Sequence[Path | str] = (),
    callback: Callback = default_callback,
    **options: Unpack[ReplayOptions],
) -> Replayed:
    """Make an image again from what it says about itself.

    Args:
        png: A PNG that hublora wrote.
        seed: Another one than the image's.
        output: A .png file or a folder; beside the image if not given.
        adapters: Files of the adapters that were not on the Hub.
        callback: Called with each event (`hublora.progress.Event`).
        options: The following.
        base: Folder or file of the base, if it was one.
        components: Folder of the pipeline that has what a single file lacks, if it was a folder.
        device: As for `load`.
        image: Image that it started from, if it is not in the same folder any more.
        mask: Inpainting mask, likewise.
        control_image: Conditioning image, likewise.
        ip_adapter: File of the IP-Adapter, if it was not on the Hub.
        ip_adapter_image: Image prompt, likewise.
        reference: Reference images, or one, likewise.

    Raises:
        ConfigError: The image does not say how it was made, or a file is needed.
        HubloraError: As `load`.
    """
    check_options(options, ReplayOptions, replay)
    png = Path(png)
    recorded = read_recorded(png)
    before = _pixels(png)
    if seed is not None and recorded.sheet is not None:
        raise ConfigError("A sheet is generated again with its own seeds.", "Leave the seed out.")
    plan = recorded.plan if seed is None else recorded.plan.with_seed(seed)
    path = _output(png, output, plan.prompt, seed)
    drift = _version_drift(recorded)
    given = pick(options, InputOptions)
    references = given.pop("reference", ())
    references = [references] if isinstance(references, Path | str) else references
    inputs = restore_inputs(recorded.conditions, png.parent, given, references).open()
    files = [*map(Path, adapters), *_adapter_of_gallery(png)]
    pipe = _load_again(recorded, files, options, inputs, drift, callback)
    if recorded.sheet is not None:
        made = _make_sheet(pipe, recorded, recorded.sheet, inputs, path, callback)
    else:
        check_plan(pipe, pipe.hublora.base.family.size_step(pipe), plan)
        use_scheduler_of(pipe, plan)
        (made,) = generate(pipe, [plan], recorded.trigger, callback, inputs.conditions)
        save(made, path, pipe.hublora, plan, recorded.trigger, inputs.conditions)
        callback(FileWritten("image", path))
    same_seed = seed in (None, recorded.plan.seed)
    return Replayed(path, tuple(drift), image_difference(made, before) if same_seed else None)


def _adapter_of_gallery(png: Path) -> list[Path]:
    """Return the adapter's file in the folder of a run or repo whose gallery an image is in."""
    beside = (png.absolute().parent.parent / name for name in (WEIGHTS, LEARNED_EMBEDDINGS))
    return [path for path in beside if png.absolute().parent.name == "images" and path.is_file()]


def _output(png: Path, output: Path | str | None, prompt: str, seed: int | None) -> Path:
    """Return the path of the new image; only an image of hublora's that is named is replaced."""
    if output is None:
        suffix = "-replay" if seed is None else f"-{seed}"
        path = unused(png.with_stem(png.stem + suffix))
        check_output(path)
        return path
    check_output(Path(output))
    check_replaceable(Path(output))
    (path,) = output_paths(Path(output), prompt, [seed or 0])
    return path


def _pixels(png: Path) -> Image.Image:
    """Return the decoded image.

    Raises:
        ConfigError: It is damaged, or too large.
    """
    with png.open("rb") as file:
        try:
            return load_image(file)
        except DataError as error:
            raise ConfigError(f"{png} {error.message}.") from error


def _make_sheet(
    pipe: Any,
    recorded: RecordedImage,
    axes: SheetAxes,
    inputs: OpenedInputs,
    path: Path,
    callback: Callback,
) -> Image.Image:
    """Generate all images of a sheet, and write it; return it."""
    composition = pipe.hublora
    plan = replace(recorded.plan, scheduler=recorded.plan.scheduler or composition.scheduler)
    cells = axes.cells(plan, [part.weight for part in composition.adapters])
    step = composition.base.family.size_step(pipe)
    for cell in cells:
        use_scheduler_of(pipe, cell.plan)
        check_plan(pipe, step, cell.plan)
    facts = image_facts(composition, recorded.plan, recorded.trigger, inputs.conditions)
    images: list[Image.Image] = []
    notes = _notes(callback)
    for number, cell in enumerate(cells):
        set_weights(pipe, cell.weights)
        use_scheduler_of(pipe, cell.plan)
        images += generate(pipe, [cell.plan], recorded.trigger, notes, inputs.conditions)
        callback(Progress("Images", number + 1, len(cells)))
    save_sheet(path, axes, images, composition, facts)
    callback(FileWritten("sheet", path))
    return axes.draw(images, composition, facts)


def _load_again(
    recorded: RecordedImage,
    adapters: Sequence[Path],
    options: ReplayOptions,
    inputs: OpenedInputs,
    drift: list[str],
    callback: Callback,
) -> Any:
    """Return the pipeline of an image; report, and add to `drift`, what differs from the record."""
    base = options.get("base")
    if base is None and recorded.has_base_folder:
        raise ConfigError(
            f"The image was generated with a folder or file as base, {recorded.base.name!r}.",
            "Name it: --base FOLDER",
        )
    with public_addresses_only():
        refs = [_find(one, adapters, drift) for one in recorded.adapters]
        loading: LoadOptions = {
            "base": base or f"hf://{recorded.base.name}",
            "base_revision": None if base else recorded.base.revision,
            "components": options.get("components")
            or (recorded.base_components if is_single_file(base) else None),
            "compose": recorded.compose,
            "weights": {str(i + 1): str(one.weight) for i, one in enumerate(recorded.adapters)},
            "dtype": recorded.dtype,
            "quantize": recorded.quantize,
            "device": options.get("device"),
        }
        pipe = load_pipeline(refs, loading, callback, inputs.prepare, inputs.check_family)
    for part, entry in zip(pipe.hublora.adapters, recorded.adapters, strict=True):
        if part.ref.kind == "url" and part.adapter.facts.sha256 != entry.sha256:
            drift.append(f"{part.title} is another file now.")
    if recorded.base_sha256 not in ("", pipe.hublora.base.sha256):
        drift.append(f"{recorded.base.name} is another file now.")
    if pipe.hublora.facts()["device"] != recorded.device:
        drift.append(f"It was generated on {recorded.device}, now on {pipe.hublora.device}.")
    for sentence in drift:
        callback(Note(sentence, warning=True))
    return pipe


def _version_drift(recorded: RecordedImage) -> list[str]:
    then = recorded.versions
    now = {"hublora": __version__, **library_versions()}
    return [
        f"{name} was {then[name]} and is {now[name]}."
        for name in now
        if then.get(name) not in (None, now[name])
    ]


def _find(entry: RecordedAdapter, files: Sequence[Path], drift: list[str]) -> str:
    """Return a ref for an adapter that an image names."""
    if entry.ref is None:
        return _find_file(entry, files)
    ref = entry.ref
    if ref.kind == "url":
        return str(ref)
    try:
        download_adapter(ref)
    except NotFoundError:
        followed = AdapterRef("repo", ref.location, entry.followed, ref.path)
        _, path = download_adapter(followed)
        same = "the same file" if sha256_of(path) == entry.sha256 else "another file"
        drift.append(
            f"{ref.location} has no commit {str(ref.revision)[:8]} any more; "
            f"{followed.revision or 'main'} has {same}."
        )
        return f"hf://{followed}"
    return f"hf://{ref}"


def _find_file(entry: RecordedAdapter, files: Sequence[Path]) -> str:
    for file in files:
        _, path = download_adapter(AdapterRef("local", str(file)))
        if sha256_of(path) == entry.sha256:
            return str(file.resolve())
    raise ConfigError(
        f"The image was generated with an adapter that was not on the Hub: {entry.title!r} "
        f"(sha256 {entry.sha256[:12]}…).",
        "Give its file: --adapter FILE",
    )


def _notes(callback: Callback) -> Callback:
    """Return a callback without the progress of single images, and with each note once."""
    told: set[Event] = set()

    def tell(event: Event) -> None:
        if not isinstance(event, Progress) and event not in told:
            told.add(event)
            callback(event)

    return tell
