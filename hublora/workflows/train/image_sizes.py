"""Resolutions of the training images: one square, or aspect-ratio buckets of about its area."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError

if TYPE_CHECKING:
    from hublora.data import CachedDataset
    from hublora.resolution.base import Base
    from hublora.training.config.training_config import TrainingConfig


def shapes(config: TrainingConfig, base: Base, pipe: Any) -> tuple[tuple[int, int], int | None]:
    """Return (h, w) of the images in pixels, and the step of bucket sides, None without buckets.

    Raises:
        ConfigError: The resolution or data.bucket_step does not fit the base.
    """
    from hublora.data.buckets import default_step

    size_step = base.family.size_step(pipe)
    side = config.data.resolution or base.family.resolution(pipe)
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

    if not config.data.aspect_buckets:
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
    sizes = (data.bucket_sizes[number] for number in data.bucket_of)
    small = sum(
        width < covered_width or height < covered_height
        for (width, height), (covered_height, covered_width) in zip(images, sizes, strict=True)
    )
    if not small:
        return None
    verb = "is" if small == 1 else "are"
    return (
        f"{small} of {len(images)} images {verb} upscaled for training; lower --resolution to "
        "avoid that."
    )


def bucket_note(data: CachedDataset) -> str:
    """Return the number of images of each bucket, as a sentence."""
    counts = Counter(data.bucket_of)
    listed = (f"{counts[n]} of {w}×{h}" for n, (h, w) in enumerate(data.bucket_sizes))
    return f"Images by shape (width×height): {', '.join(listed)}"
