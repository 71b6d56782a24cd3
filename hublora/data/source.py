"""The images and captions of a training, from a Hub dataset, a folder or an archive.

config ─ list the dataset, folder or archive ─▶ Listing
       ─ choose `max_train_samples`, check the images ─▶ Source
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hublora.data.captions import clean
from hublora.data.config import DataConfig
from hublora.data.examples import Example, Listing, Skipped
from hublora.data.references import reference_note, split_unpaired
from hublora.errors import DataError, NotFoundError


@dataclass(frozen=True)
class Source:
    """Captioned images to train on, all of which decode.

    Attributes:
        id: Repo id of the dataset, or the name of the folder or archive.
        revision: Commit of the dataset, 40 hexadecimal digits; None for a folder or archive.
        license: Licence on the dataset's card; None where it names none.
        image_column: Column with the images.
        caption_column: Column with the captions; None where all get the default caption.
        fingerprint: Hash of images, masks and captions in their order.
        images_fingerprint: Hash of the images in their order, on which latents depend.
        examples: Images in a fixed order.
        skipped: Images that are left out, with reasons.
        notes: Sentences for the log about how the dataset was read.
        masks_fingerprint: Hash of the masks; "" without masks.
        references_fingerprint: Hash of the reference images; "" without any.
        captions_from: Place of the captions, such as "column 'text' of metadata.csv"; None
            where all images get one caption.
    """

    id: str
    revision: str | None
    license: str | None
    image_column: str
    caption_column: str | None
    fingerprint: str
    images_fingerprint: str
    examples: Sequence[Example]
    skipped: Sequence[Skipped]
    notes: Sequence[str] = ()
    masks_fingerprint: str = ""
    references_fingerprint: str = ""
    captions_from: str | None = None

    def skipped_note(self, most: int = 5) -> str | None:
        """Return a sentence that names up to `most` skipped images; None if none are skipped."""
        if not self.skipped:
            return None
        total = len(self.skipped) + len(self.examples)
        verb = "is" if len(self.skipped) == 1 else "are"
        named = _name(self.skipped, most)
        return f"{len(self.skipped)} of {total} images {verb} skipped: {named}"


def with_captions(source: Source, caption: Callable[[Example], tuple[str, ...]]) -> Source:
    """Return `source` with the captions that `caption` returns for each example.

    Args:
        source: Images.
        caption: Example -> one or more captions.
    """
    examples = [replace(one, captions=tuple(map(clean, caption(one)))) for one in source.examples]
    captions = [example.captions for example in examples]
    return replace(source, examples=examples, fingerprint=hash_parts(source.fingerprint, captions))


def join(source: Source, other: Source) -> Source:
    """Return the images of `source` followed by those of `other`, with the id of `source`."""
    return replace(
        source,
        examples=[*source.examples, *other.examples],
        fingerprint=hash_parts(source.fingerprint, other.fingerprint),
        images_fingerprint=hash_parts(source.images_fingerprint, other.images_fingerprint),
    )


def first(source: Source, count: int) -> Source:
    """Return the first `count` images of `source`."""
    examples = source.examples[:count]
    return replace(
        source,
        examples=examples,
        fingerprint=hash_parts(source.fingerprint, len(examples)),
        images_fingerprint=hash_parts(source.images_fingerprint, len(examples)),
    )


def open_source(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> Source:
    """Return the images and captions that `config` names, without those that cannot be used.

    Reads every image once (the result is cached), so that no image fails during the training.

    Args:
        config: Dataset, folder or archive, and its columns.
        progress: Called with (done, total) in images.

    Raises:
        DataError: No image is usable; a column, split or configuration does not exist; or
            `config.strict` is set and images would be skipped.
        NotFoundError: The dataset or revision does not exist on the Hub.
        AccessError: The token may not read the dataset.
        HubError: The Hub cannot be reached and the dataset is not in the local cache.
    """
    from hublora.data.image_check import scan_images

    listing = _read_listing(config, progress)
    if not listing.examples:
        raise DataError(f"{listing.id} has no images.")
    examples = [replace(one, repeats=one.repeats * config.repeats) for one in listing.examples]
    captioned, uncaptioned = _with_captions(examples, config.default_caption)
    paired, unpaired = split_unpaired(captioned, listing.id, config.references)
    chosen = _sample(paired, config.max_train_samples, config.seed)
    named = [example.name for example in chosen]
    pairs = [listing.reference_digest] if listing.reference_digest else []
    digest = hash_parts(listing.digest, listing.mask_digest, named, *pairs)
    usable, damaged = scan_images(chosen, digest, config.cache_root, config.num_workers, progress)
    skipped = [*damaged, *uncaptioned, *unpaired, *listing.left_out]
    if config.strict and skipped:
        raise DataError(
            f"{_count(skipped)} of {listing.id} cannot be used: {_name(skipped, 20)}.",
            "Mend or remove them, or leave out --strict to skip them.",
        )
    if not usable:
        raise DataError(
            f"None of the {_count(skipped)} of {listing.id} can be used: {_name(skipped, 5)}.",
            None if damaged else _caption_hint(listing),
        )
    images = hash_parts(listing.digest, [example.name for example in usable])
    notes = [*listing.notes, *(_mask_notes(listing.id, usable) if config.masks else ())]
    if config.crop_on_faces:
        usable, note = _centered(usable, images, config)
        notes.append(note)
    if listing.references_from is not None:
        notes.append(reference_note(listing.id, usable, listing.references_from))
    return Source(
        id=listing.id,
        revision=listing.revision,
        license=listing.license,
        image_column=listing.image_column,
        caption_column=listing.caption_column,
        fingerprint=hash_parts(images, listing.mask_digest, [e.captions for e in usable], *pairs),
        images_fingerprint=images,
        masks_fingerprint=listing.mask_digest,
        references_fingerprint=listing.reference_digest,
        examples=usable,
        skipped=skipped,
        notes=notes,
        captions_from=listing.captions_from if any(e.captions for e in examples) else None,
    )


def check_there(config: DataConfig) -> None:
    """Check that a local folder or archive exists, and the folder its split, without reading it.

    Raises:
        DataError: The folder, its split or the archive does not exist, or `data.dataset` is the
            path of a folder.
    """
    from hublora.data.folder_files import find_layout

    if config.dataset is not None:
        _check_no_folder(config)
    if config.folder is not None:
        find_layout(config.folder.expanduser(), config.split)
    if config.archive is not None and "://" not in config.archive:
        archive = Path(config.archive).expanduser()
        if not archive.is_file():
            raise DataError(f"The archive {archive} does not exist.")


def _centered(
    examples: Sequence[Example], fingerprint: str, config: DataConfig
) -> tuple[list[Example], str]:
    """Return the examples centred on faces, and the sentence with the number of faces."""
    from hublora.data.faces import can_find_faces, center_on_faces

    if not can_find_faces():
        return list(examples), (
            "Images are cut without looking for faces: that needs pip install 'hublora[faces]'."
        )
    found = center_on_faces(examples, fingerprint, config.cache_root, config.num_workers)
    faces = sum(example.crop_center is not None for example in found)
    return found, f"Crops are around the face in {faces} of {len(found)} images."


def _read_listing(config: DataConfig, progress: Callable[[int, int], None] | None) -> Listing:
    from hublora.data.archive import fetch_archive
    from hublora.data.folder import list_folder
    from hublora.data.hub_dataset import list_dataset
    from hublora.data.streaming import list_stream

    given = [name for name in ("dataset", "folder", "archive") if getattr(config, name) is not None]
    if len(given) != 1:
        said = " and ".join(f"--{name}" for name in given)
        raise DataError(
            f"{said} exclude each other." if given else "No dataset, folder or archive is named.",
            "Give exactly one of --dataset owner/name, --folder PATH and --archive PATH.",
        )
    if config.folder is not None:
        folder = config.folder.expanduser()
        return list_folder(config, folder, folder.resolve().name)
    if config.archive is not None:
        return list_folder(config, *fetch_archive(config.archive, config.cache_root))
    _check_no_folder(config)
    try:
        return list_stream(config, progress) if config.streaming else list_dataset(config)
    except NotFoundError as error:
        if Path(str(config.dataset)).is_dir():
            hint = f"For the folder, use: --folder {config.dataset}"
            raise NotFoundError(error.message, hint) from error
        raise


def _check_no_folder(config: DataConfig) -> None:
    """Check that `data.dataset` is no path of a folder.

    Raises:
        DataError: It is one.
    """
    dataset = str(config.dataset or "")
    if dataset.startswith((".", "/", "~")) or (dataset.count("/") != 1 and Path(dataset).is_dir()):
        raise DataError(
            f"{dataset!r} is a folder, not a dataset on the Hub.", f"Use: --folder {dataset}"
        )


def _sample(examples: Sequence[Example], most: int | None, seed: int) -> Sequence[Example]:
    """Return `most` random examples: the first ones after `datasets.Dataset.shuffle(seed)`."""
    if most is None or most >= len(examples):
        return examples
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(examples))
    return [examples[index] for index in order[:most]]


def _with_captions(
    examples: Sequence[Example], default: str | None
) -> tuple[list[Example], list[Skipped]]:
    if default is not None:
        fill = (clean(default),)
        return [replace(e, captions=e.captions or fill) for e in examples], []
    return (
        [example for example in examples if example.captions],
        [Skipped(example.name, "has no caption") for example in examples if not example.captions],
    )


def _mask_notes(where: str, examples: Sequence[Example]) -> list[str]:
    """Return a sentence about images without a mask.

    Raises:
        DataError: No image has a mask.
    """
    without = sum(example.mask is None for example in examples)
    if without == len(examples):
        raise DataError(
            f"No image of {where} has a mask.",
            "Put x.mask.png beside x.png, or name a column: --set data.mask_column=…",
        )
    if not without:
        return []
    return [f"{without} of {len(examples)} images have no mask and are learned as a whole."]


def _caption_hint(listing: Listing) -> str:
    if listing.revision is not None:
        return "Name another column with --caption-column."
    return (
        "Write a .txt beside each image or a metadata.jsonl with lines such as "
        '{"file_name": "a.png", "text": "a drawing of a cat"}, or give all images one caption '
        'with --set data.default_caption="…".'
    )


def _count(images: Sequence[Skipped]) -> str:
    return f"{len(images)} image" + ("" if len(images) == 1 else "s")


def _name(skipped: Sequence[Skipped], most: int) -> str:
    named = ", ".join(f"{one.name} {one.reason}" for one in skipped[:most])
    return named + (f" and {len(skipped) - most} more" if len(skipped) > most else "")


def hash_parts(*parts: Any) -> str:
    """Return the SHA-256 of values that JSON can hold, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
