"""What is trained on, and how its images are shaped: the `data` section of a config."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hublora.filesystem import cache_root

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class DataConfig(BaseModel):
    """The images and captions of a training, and what is done to them.

    Exactly one of `dataset`, `folder` and `archive` is set; `open_source` checks it.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    dataset: str | None = Field(
        None, description="Captioned images on the Hub, as owner/name of a dataset repo."
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit of the dataset (default: its main branch)."
    )
    config_name: str | None = Field(
        None, description="Configuration of the dataset, where it has several."
    )
    split: str = Field(
        "train", min_length=1, description='Split of the dataset; "train[:100]" takes a part.'
    )
    streaming: bool = Field(
        False,
        description="Read the dataset row by row instead of downloading it; with "
        "--max-train-samples.",
    )
    folder: Path | None = Field(
        None,
        description="Captioned images on this disk: a folder with metadata.jsonl or "
        "metadata.csv, or with a .txt beside each image.",
    )
    archive: str | None = Field(
        None, description="A .zip of such a folder: a path or an https URL."
    )
    image_column: str | None = Field(
        None, description="Column with the images (default: found by its type)."
    )
    caption_column: str | None = Field(
        None, description="Column with the captions (default: found by its name)."
    )
    masks: bool = Field(
        False,
        description="Learn only what each image's mask shows: x.mask.png beside x.png, or a "
        "column named mask.",
    )
    mask_column: str | None = Field(
        None, description="Column with the masks (default: found by its name)."
    )
    default_caption: str | None = Field(
        None, description='Caption of every image that has none, such as "a photo of sks dog".'
    )
    max_train_samples: int | None = Field(
        None,
        ge=1,
        description="Take only this many images, drawn with `seed`; the first ones when streaming.",
    )
    repeats: int = Field(
        1, ge=1, le=10_000, description="How often each image is shown in one pass."
    )
    folder_repeats: bool | None = Field(
        None,
        description="Read a folder's name such as 10_dog as ten repeats (default: if all images "
        "lie in such folders).",
    )
    strict: bool = Field(
        False, description="Refuse a dataset with unusable images instead of skipping them."
    )
    resolution: int | None = Field(
        None, ge=8, description="Side of the square images in pixels (default: the base's own)."
    )
    interpolation: Interpolation = Field(
        "lanczos", description="Filter with which images are resized."
    )
    aspect_buckets: bool = Field(
        False,
        description="Train each image in the shape nearest to its own instead of a square; a "
        "batch is of one shape.",
    )
    bucket_step: int | None = Field(
        None,
        ge=8,
        description="What the sides of buckets are multiples of (default: a sixteenth of the "
        "resolution).",
    )
    bucket_batch: int | None = Field(
        None,
        ge=1,
        description="Images of one shape in a row (default: --train-batch-size).",
    )
    center_crop: bool = Field(
        False, description="Crop the middle of each image instead of random places."
    )
    inpaint_mask_variants: int = Field(
        4,
        ge=1,
        le=64,
        description="Random masks that are cached of each crop, for bases that inpaint.",
    )
    crop_on_faces: bool = Field(
        False,
        description="Keep the largest face of each image in the middle of its crop; without a "
        "face, or without hublora[faces], images are cut as otherwise.",
    )
    crop_variants: int = Field(
        4, ge=1, le=64, description="Random crops that are cached of each image."
    )
    random_flip: bool = Field(False, description="Also train on mirrored images, half of the time.")
    caption_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of the steps that train on the empty caption."
    )
    shuffle_tags: bool = Field(
        False,
        description="Change the order of a caption's tags, which are what lies between commas.",
    )
    keep_tags: int = Field(
        0, ge=0, description="How many of a caption's first tags stay where they are."
    )
    tag_dropout: float = Field(
        0.0, ge=0, le=1, description="Probability with which each other tag is left out."
    )
    caption_variants: int = Field(
        8, ge=1, le=1024, description="Ways in which a caption's tags are written and cached."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="Seed of the crops, the tags and the `max_train_samples` that are drawn.",
    )
    num_workers: int = Field(
        0, ge=0, description="Threads that decode images ahead of the encoder (0: none)."
    )
    cache_dir: Path | None = Field(
        None,
        description="Where latents and prompts are cached (default: $HUBLORA_CACHE, else "
        "~/.cache/hublora).",
    )

    @property
    def cache_root(self) -> Path:
        """The cache folder in effect; never written into a saved config unless it was set."""
        return self.cache_dir.expanduser() if self.cache_dir else cache_root()
