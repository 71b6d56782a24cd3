"""Captions images: images ─ model ─▶ a .txt file beside each ─ push (optional) ─▶ a dataset."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Unpack

from hublora.cards.dataset import dataset_card
from hublora.cards.format import format_count
from hublora.errors import ConfigError, DataError, NotFoundError
from hublora.filesystem import write_atomically
from hublora.generation.options import CaptionOptions, check_options
from hublora.hub.push_dataset import push_dataset_files
from hublora.hub.repo_layout import CARD
from hublora.notebook import NotebookResult
from hublora.progress import Callback, Note, Progress, default_callback, downloading, no_callback

if TYPE_CHECKING:
    from PIL.Image import Image

    from hublora.data.captioner import Captioner
    from hublora.data.examples import Example
    from hublora.hub.push import PushResult


@dataclass(frozen=True)
class Captioned(NotebookResult):
    """Result of captioning.

    Attributes:
        folder: Folder in which each image has a .txt file beside it.
        written: Number of captions generated now.
        kept: Number of images that had a caption already.
        skipped: Number of images that cannot be read.
        pushed: Repo and commit of the dataset; None without a push.
        captions: Path of an image in `folder` -> the caption that was generated now.
    """

    folder: Path
    written: int
    kept: int
    skipped: int
    pushed: PushResult | None = None
    captions: Mapping[str, str] = field(default_factory=dict)


def caption(
    source: str,
    *,
    model: str | None = None,
    output: Path | None = None,
    prefix: str = "",
    overwrite: bool = False,
    push_to: str | None = None,
    callback: Callback = default_callback,
    **options: Unpack[CaptionOptions],
) -> Captioned:
    """Generate a caption for every image that has none.

    Captions are written batch by batch, so a stopped run resumes at the first missing one.

    Args:
        source: A folder, in which the captions are written by default; or a .zip file by path or
            https URL, or a dataset on the Hub, whose images are copied to `output`.
        model: Repo id or folder of the captioning model; BLIP base by default.
        output: Folder of the captioned images; None writes beside a folder's own images.
        prefix: Text in front of every caption, e.g. a trigger word and a comma.
        overwrite: Replace captions that exist.
        push_to: owner/name of a dataset repo to push to; None pushes nothing.
        callback: Called with each event (`hublora.progress.Event`).
        options: The following.
        revision: Branch, tag or commit of the model.
        batch_size: Images per forward pass of the model, at least 1; 4 by default.
        device: A torch device; a GPU if there is one.
        private: Create that repo private.

    Raises:
        ConfigError: A keyword is unknown; the nearest known one is named.
        HubloraError: Source or model cannot be loaded, or the push failed.
    """
    from hublora.data.captioner import DEFAULT_MODEL, Captioner
    from hublora.hub.push import check_can_push
    from hublora.resolution.device import default_device

    check_options(options, CaptionOptions, caption)
    if push_to is not None:
        push_to = check_can_push(push_to, "dataset")
    examples, name = _list_images(source)
    folder = _output_folder(source, output, name)
    names = _file_names(examples)
    missing = [
        (example, folder / file)
        for example, file in zip(examples, names, strict=True)
        if overwrite or not os.path.lexists((folder / file).with_suffix(".txt"))
    ]
    captions: dict[str, str] = {}
    model = model or DEFAULT_MODEL
    if missing:
        found = _fetch_model(model, options.get("revision"), callback)
        captioner = Captioner(found, options.get("device") or default_device())
        size = options.get("batch_size", 4)
        for path, text in _caption_all(captioner, missing, prefix, size, callback):
            captions[path.relative_to(folder).as_posix()] = text
    skipped, kept = len(missing) - len(captions), len(examples) - len(missing)
    done = Captioned(folder, len(captions), kept, skipped, captions=captions)
    if push_to is None:
        return done

    pushed = push_dataset(
        folder,
        names,
        push_to,
        captioned_by=model,
        private=options.get("private", False),
        callback=callback,
    )
    return replace(done, pushed=pushed)


def _list_images(source: str) -> tuple[Sequence[Example], str]:
    """Return the images of a folder, a .zip file or a Hub dataset, and its name."""
    from hublora.data.archive import fetch_archive
    from hublora.data.config import DataConfig
    from hublora.data.folder import list_images
    from hublora.data.hub_dataset import list_dataset

    path = Path(source).expanduser()
    found: Sequence[Example]
    if path.is_dir():
        found, name = list_images(path), path.resolve().name
    elif path.suffix.lower() == ".zip" or "://" in source:
        folder, name = fetch_archive(source, DataConfig().cache_root)
        found = list_images(folder)
    else:
        found, name = list_dataset(DataConfig(dataset=source)).examples, source.split("/")[-1]
    if not found:
        raise DataError(f"{source} has no images.")
    return found, name


def _output_folder(source: str, output: Path | None, name: str) -> Path:
    if output is not None:
        return output.expanduser()
    path = Path(source).expanduser()
    return path if path.is_dir() else Path(f"{name}-captioned")


def _file_names(examples: Sequence[Example]) -> list[str]:
    """Return a relative file name for each image; numbers for the rows of a dataset.

    Raises:
        DataError: Two images would share one .txt file.
    """
    from hublora.data.folder_files import ENDINGS

    names = [
        example.name
        if PurePosixPath(example.name).suffix.lower() in ENDINGS
        else f"{number:06}.png"
        for number, example in enumerate(examples)
    ]
    stems: dict[str, str] = {}
    for name in names:
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in stems:
            raise DataError(
                f"{stems[stem]} and {name} would share the caption file {stem}.txt.", "Rename one."
            )
        stems[stem] = name
    return names


def _fetch_model(model: str, revision: str | None, callback: Callback) -> Path:
    from hublora.hub.client import endpoint
    from hublora.hub.download import download_model
    from hublora.hub.resolve import inspect_repo
    from hublora.refs import parse_repo_id, parse_revision

    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    try:
        snapshot = inspect_repo(
            parse_repo_id(model), "model", parse_revision(revision) if revision else None
        )
    except NotFoundError as error:
        if "huggingface.co" in endpoint():
            raise
        raise NotFoundError(
            f"The captioning model {model} is not on this Hub, {endpoint()}.",
            f"Get it with: HF_ENDPOINT=https://huggingface.co hf download {model}. Then name the "
            "folder that this prints: --model FOLDER",
        ) from error
    callback(Note(f"Captioning with {model}@{snapshot.commit[:8]}"))
    return download_model(model, snapshot.commit, snapshot.files, progress=downloading(callback))


def _caption_all(
    captioner: Captioner,
    missing: Sequence[tuple[Example, Path]],
    prefix: str,
    batch_size: int,
    callback: Callback,
) -> Iterator[tuple[Path, str]]:
    """Write the missing captions, each batch before the next one; yield each image's."""
    written = 0
    for batch in _readable_batches(missing, batch_size, callback):
        captions = captioner.describe([image for _, _, image in batch])
        for (example, path, image), text in zip(batch, captions, strict=True):
            _save_image(example, image, path)
            write_atomically(path.with_suffix(".txt"), f"{prefix}{text}\n")
            yield path, f"{prefix}{text}"
        written += len(batch)
        callback(Progress("Captioning", written, len(missing)))


def _readable_batches(
    missing: Sequence[tuple[Example, Path]], size: int, callback: Callback
) -> Iterator[list[tuple[Example, Path, Image]]]:
    batch = []
    for example, path in missing:
        try:
            batch.append((example, path, example.open()))
        except DataError as error:
            callback(Note(error.message, warning=True))
            continue
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _save_image(example: Example, image: Image, path: Path) -> None:
    """Write the image to `path` unless it is there: the original bytes, for a dataset's row a PNG.

    Raises:
        ConfigError: Another file is there.
    """
    if path.name != PurePosixPath(example.name).name:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = buffer.getvalue()
    else:
        with example.file() as file:
            content = file.read()
    if not os.path.lexists(path):
        write_atomically(path, content)
    elif not path.is_file() or path.read_bytes() != content:
        raise ConfigError(
            f"{path} is another file than the image {example.name}, whose copy would be there.",
            "Name another folder with -o.",
        )


def push_dataset(
    folder: Path,
    images: Sequence[str],
    repo_id: str,
    *,
    captioned_by: str | None = None,
    private: bool = False,
    callback: Callback = no_callback,
) -> PushResult:
    """Push the images that have a caption as an image folder with metadata.jsonl and a card.

    Args:
        folder: Folder of the images, each with a .txt file beside it.
        images: Paths inside `folder`.
        repo_id: owner/name of the dataset repo; created if it does not exist.
        captioned_by: Repo id of the captioning model, for the card; None if unknown.
        private: Create the repo private.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        HubloraError: As `push_dataset_files`.
    """
    captions = {
        name: path.read_text(encoding="utf-8").strip()
        for name in images
        if (path := (folder / name).with_suffix(".txt")).is_file()
    }
    rows = [
        json.dumps({"file_name": name, "text": text}, ensure_ascii=False)
        for name, text in captions.items()
    ]
    card = dataset_card(repo_id, captions, captioned_by)
    files: dict[str, Path | bytes] = {name: folder / name for name in captions}
    files |= {"metadata.jsonl": ("\n".join(rows) + "\n").encode(), CARD: card.encode()}
    callback(Note(f"Pushing {format_count(len(captions), 'image')} to {repo_id} …"))
    pushed = push_dataset_files(
        files, repo_id, message="Upload captioned images with hublora", private=private
    )
    callback(Note(f"Verified {repo_id}@{pushed.commit[:8]}: every file is as pushed."))
    return pushed
