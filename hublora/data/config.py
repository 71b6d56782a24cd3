"""The `data` section of a training config: images, captions, sizes and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hublora.data.captions import CaptionLines
from hublora.errors import ConfigError
from hublora.filesystem import cache_root

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

MIN_SIDE = 8  # pixels


def parse_resolution(value: Any) -> int | list[int] | None:
    """Return a side in pixels, or several distinct ones, ascending; None for the base's.

    Args:
        value: A number, several in a list, or a text such as "512,1024".

    Raises:
        ConfigError: It is anything else, or a side is below 8.
    """
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    sides = [_side(one, value) for one in (parts if isinstance(parts, list | tuple) else [parts])]
    if not sides:
        raise _no_resolution(value)
    distinct = sorted(set(sides))
    return distinct if len(distinct) > 1 else distinct[0]


def _side(part: Any, value: Any) -> int:
    is_number = isinstance(part, str) and part.strip().isascii() and part.strip().isdigit()
    if isinstance(part, bool) or not (is_number or isinstance(part, int)) or int(part) < MIN_SIDE:
        raise _no_resolution(value)
    return int(part)


def _no_resolution(value: Any) -> ConfigError:
    return ConfigError(
        f"--resolution must be one or several sides of at least {MIN_SIDE} pixels, got {value!r}.",
        "Give e.g. --resolution 512, or several: --resolution 512,1024.",
    )


class DataConfig(BaseModel):
    """Images and captions of a training, and their preprocessing.

    Exactly one of `dataset`, `folder` and `archive` must be set, which `open_source` checks.
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
        "train",
        min_length=1,
        description='Split of the dataset; "train[:100]" uses a part. Of a folder, the subfolder.',
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
        None,
        description="Column with the captions (default: the one whose name says caption).",
    )
    caption_lines: CaptionLines = Field(
        "join",
        description="What a caption of several lines is: first (its first line, as kohya's scripts "
        "read it), join (one caption), or any (one line is chosen per sample).",
    )
    masks: bool = Field(
        False,
        description="Weight the loss by each image's mask: x.mask.png beside x.png, or a column "
        "named mask.",
    )
    mask_column: str | None = Field(
        None, description="Column with the masks (default: found by its name)."
    )
    references: bool | None = Field(
        None,
        description="Train on pairs, whose captions are instructions: reference images are "
        "x.control.png beside x.png, or a column (default: where the base takes them and the data "
        "has them).",
    )
    reference_column: str | None = Field(
        None,
        description="Column with the reference images, or several with commas between (default: "
        "found by their names).",
    )
    default_caption: str | None = Field(
        None, description='Caption of every image that has none, such as "a photo of sks dog".'
    )
    max_train_samples: int | None = Field(
        None,
        ge=1,
        description="Use only this many images, sampled with `seed`; the first ones if streaming.",
    )
    repeats: int = Field(1, ge=1, le=10_000, description="How often each image occurs in an epoch.")
    folder_repeats: bool | None = Field(
        None,
        description="Read a folder's name such as 10_dog as ten repeats (default: if all images "
        "are in such folders).",
    )
    strict: bool = Field(
        False, description="Refuse a dataset with unusable images instead of skipping them."
    )
    resolution: Annotated[int | list[int] | None, BeforeValidator(parse_resolution)] = Field(
        None,
        description="Side of the square images in pixels (default: the base's). Of several, as in "
        "512,1024, each image is trained at those that it is large enough for.",
    )
    interpolation: Interpolation = Field(
        "lanczos", description="Resampling filter for resizing images."
    )
    aspect_buckets: bool = Field(
        False,
        description="Assign each image to the bucket with the nearest aspect ratio instead of "
        "cropping a square; a batch is from one bucket.",
    )
    bucket_step: int | None = Field(
        None,
        ge=8,
        description="Multiple of which the sides of buckets are, in pixels (default: a sixteenth "
        "of the resolution).",
    )
    bucket_batch: int | None = Field(
        None,
        ge=1,
        description="Consecutive images of one bucket (default: --train-batch-size).",
    )
    center_crop: bool = Field(
        False, description="Crop the middle of each image instead of random positions."
    )
    inpaint_mask_variants: int = Field(
        4,
        ge=1,
        le=64,
        description="Random inpainting masks that are cached for each crop, if the base inpaints.",
    )
    crop_on_faces: bool = Field(
        False,
        description="Centre each crop on the image's largest face; without a face, or without "
        "hublora[faces], the other settings decide.",
    )
    crop_variants: int = Field(
        4, ge=1, le=64, description="Random crops that are cached for each image."
    )
    random_flip: bool = Field(False, description="Mirror half of the images at random.")
    caption_dropout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability with which a sample is trained on the empty caption.",
    )
    shuffle_tags: bool = Field(
        False,
        description="Shuffle a caption's tags, which are separated by commas.",
    )
    keep_tags: int = Field(
        0,
        ge=0,
        description="Number of first tags of a caption that are neither shuffled nor dropped.",
    )
    tag_dropout: float = Field(
        0.0, ge=0, le=1, description="Probability with which each other tag is dropped."
    )
    caption_variants: int = Field(
        8, ge=1, le=1024, description="Variants of a caption's tags that are cached."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="Seed of the crops, the tags and the choice of `max_train_samples`.",
    )
    num_workers: int = Field(
        0, ge=0, description="Threads that decode images ahead of the encoder (0: none)."
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder of cached latents and prompt embeddings (default: $HUBLORA_CACHE, "
        "else ~/.cache/hublora).",
    )

    @property
    def sides(self) -> list[int]:
        """The resolutions in pixels, ascending; empty for the base's own."""
        if self.resolution is None:
            return []
        return self.resolution if isinstance(self.resolution, list) else [self.resolution]

    @property
    def has_several_shapes(self) -> bool:
        """Whether images are trained in several shapes, so that a batch is of one of them."""
        return self.aspect_buckets or len(self.sides) > 1

    @property
    def cache_root(self) -> Path:
        """Root folder of the cache; not part of a saved config unless `cache_dir` is set."""
        return self.cache_dir.expanduser() if self.cache_dir else cache_root()
