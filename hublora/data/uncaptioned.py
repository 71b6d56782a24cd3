"""All images of a folder under one caption, as those of a class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hublora.data.captions import clean
from hublora.data.config import DataConfig
from hublora.data.folder import FILE_COLUMN, list_uncaptioned
from hublora.data.folder_files import digest_files
from hublora.data.image_check import scan_images
from hublora.data.source import Source, hash_parts


def open_uncaptioned(folder: Path, caption: str, config: DataConfig) -> Source:
    """Return all images of a folder that decode, under one caption.

    Metadata and .txt files are not read.

    Args:
        folder: Folder with images.
        caption: Caption of each image.
        config: Cache and number of threads.
    """
    listed = [replace(one, captions=(clean(caption),)) for one in list_uncaptioned(folder)]
    digest, _ = digest_files([(one.name, one.file) for one in listed], config.num_workers)
    usable, damaged = scan_images(listed, hash_parts(digest), config.cache_root, config.num_workers)
    images = hash_parts(digest, [one.name for one in usable])
    return Source(
        id=folder.name,
        revision=None,
        license=None,
        image_column=FILE_COLUMN,
        caption_column=None,
        fingerprint=hash_parts(images, [one.captions for one in usable]),
        images_fingerprint=images,
        examples=usable,
        skipped=damaged,
    )
