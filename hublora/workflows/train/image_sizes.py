"""Resolutions of the training images: one square, or aspect-ratio buckets of about its area."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.crops import is_enlarged
from hublora.errors import ConfigError

if TYPE_CHECKING:
    from hublora.data import CachedDataset
    from hublora.data.crops import Resolution
    from hublora.resolution.base import Base
    from hublora.training.config.training_config import TrainingConfig


def shapes(config: TrainingConfig, base: Base, pipe: Any) -> tuple[tuple[int, int], int | None]:
    """Return (h, w) of the images in pixels, at the largest resolution, and the step of bucket
    sides, None without buckets.

    Raises:
        ConfigError: The resolution or data.bucket_step does not fit the base.
    """
    return resolutions(config, base, pipe)[-1]


def resolutions(config: TrainingConfig, base: Base, pipe: Any) -> list[Resolution]:
    """Return (h, w) of the images in pixels and the step of bucket sides, None without buckets, of
    each resolution, ascending.

    Raises:
        ConfigError: A resolution or data.bucket_step does not fit the base.
    """
    sides = config.data.sides or [base.family.resolution(pipe)]
    return [_resolution(config, side, base.family.size_step(pipe)) for side in sides]


def _resolution(config: TrainingConfig, side: int, size_step: int) -> Resolution:
    from hublora.data.buckets import default_step

    _check_side(side, size_step)
    if not config.data.aspect_buckets:
        return (side, side), None
    step = config.data.bucket_step or default_step(side, size_step)
    if step % size_step or step > side:
        raise ConfigError(
            f"data.bucket_step {step} is not a multiple of {size_step} up to the resolution "
            f"{side}, as this base requires.",
            f"Leave it out for {default_step(side, size_step)}.",
        )
    return (side, side), step


def _check_side(side: int, step: int) -> None:
    if side % step:
        lower = side // step * step
        raise ConfigError(
            f"The resolution {side} is not a multiple of {step}, as this base requires.",
            f"Use --resolution {max(lower, step)} or {lower + step}.",
        )


def resolve_bucket_batch(config: TrainingConfig, checkpoint: Path | None) -> TrainingConfig:
    """Return the settings with data.bucket_batch filled in: images of one shape in a row.

    A resumed training uses that of its checkpoint, so that its batches may become smaller.

    Raises:
        ConfigError: A batch would be of several shapes.
    """
    from hublora.training.checkpoint import setting_of

    if not config.data.has_several_shapes:
        return config
    batch = config.data.bucket_batch or config.train_batch_size
    if checkpoint is not None and config.data.bucket_batch is None:
        kept = setting_of(checkpoint, "data.bucket_batch")
        batch = kept if isinstance(kept, int) and kept > 0 else batch
    if batch % config.train_batch_size:
        raise ConfigError(
            f"--train-batch-size {config.train_batch_size} does not divide data.bucket_batch "
            f"{batch}: a batch would be of several shapes.",
            f"Use --train-batch-size {batch}, or a divisor of it.",
        )
    return config.updated({"data.bucket_batch": batch})


def enlarged_note(data: CachedDataset, images: Sequence[tuple[int, int]]) -> str | None:
    """Return the warning that images are upscaled, None if none is.

    Args:
        data: The dataset with the sizes that images are trained in.
        images: Width and height of each image in pixels.
    """
    pairs = zip(data.image_of, data.bucket_of, strict=True)
    small = sum(is_enlarged(images[image], data.bucket_sizes[bucket]) for image, bucket in pairs)
    if not small:
        return None
    verb = "is" if small == 1 else "are"
    return (
        f"{small} of {len(images)} images {verb} upscaled for training; lower --resolution to "
        "avoid that."
    )


def resolution_note(data: CachedDataset, sides: Sequence[int]) -> str:
    """Return the number of images at each resolution, as a sentence.

    Args:
        data: The dataset with the resolutions that images are trained at.
        sides: The resolutions that were asked for, in pixels, ascending.
    """
    images = len(set(data.image_of))
    counts = Counter(data.sides_of)
    listed = ", ".join(f"{counts[side]} at {side}" for side in sides)
    few = any(counts[side] < images for side in sides)
    return f"Images by resolution: {listed}{'; the others are too small' if few else ''}"


def bucket_note(data: CachedDataset) -> str:
    """Return the number of images of each bucket, as a sentence."""
    counts = Counter(data.bucket_of)
    listed = (f"{counts[n]} of {w}×{h}" for n, (h, w) in enumerate(data.bucket_sizes))
    return f"Images by shape (width×height): {', '.join(listed)}"
