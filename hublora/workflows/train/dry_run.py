"""Dry run of a training: settings ─ checks, one measured step ─▶ time, memory, disk.

Over 300 lines because every figure of the report is measured or derived here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.filesystem import nearest_folder, temporary_folder
from hublora.progress import Callback, Note, default_callback
from hublora.refs import is_repo
from hublora.workflows.train.cache_keys import image_key
from hublora.workflows.train.card_facts import peak_memory
from hublora.workflows.train.class_images import count_missing, plan_class_images
from hublora.workflows.train.gallery import count_generated, plan_gallery
from hublora.workflows.train.hub_checkpoint import download_checkpoint
from hublora.workflows.train.image_sizes import resolutions
from hublora.workflows.train.other_adapters import attach_assistant, initial_updates
from hublora.workflows.train.prepare import (
    PreparedRun,
    encode,
    epoch_length,
    prepare_run,
)
from hublora.workflows.train.reference_images import reference_encoders

if TYPE_CHECKING:
    from hublora.data.crops import Bucket
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.session import Session

_PASSES_OF_A_STEP = 3  # forward, and backward as two
_SPARE = 1.1  # of the disk: files of the system's own


@dataclass(frozen=True)
class DryRunReport:
    """What a training would do and need; sizes in bytes, durations in seconds.

    Attributes:
        settings: Effective settings under dotted keys.
        base: Base at its commit.
        base_license: Licence in the base's card; None if it states none.
        dataset: Source of the images.
        dataset_license: Licence in the dataset's card; None if it states none.
        images: Number of training images.
        captions_from: Place of the captions, such as "column 'text' of metadata.csv"; None where
            all images get one caption.
        skipped: Number of unusable images.
        held_out: Number of held-out images.
        buckets: "width×height" -> number of images; empty where all have one shape.
        class_images: Number of class images to generate first.
        preserved: Captions whose predictions are preserved, and the cost, as a sentence; None
            without `objective.preserve`.
        size: Height and width of the images in pixels, at the largest resolution, which is the one
            that is measured; of buckets, the square of their area.
        weights: Number of trained parameters.
        learning_rate: Peak learning rate of the adapter; None without adapter.
        token_embedding_lr: Peak learning rate of token embeddings; None without any.
        steps: Optimizer steps to do.
        images_per_step: Effective batch size, over all devices.
        device: Name of the device.
        encode_seconds: Duration of encoding; 0 if latents and prompts are cached.
        step_seconds: Measured duration of an optimizer step.
        train_seconds: Duration of all steps, without generated images.
        generate_seconds: Estimated duration of generating all images, from that of a step.
        previews: Number of images generated during the training.
        gallery: Number of images generated at the end, those of the base alone included.
        memory: Peak of that step, of the GPU or, without one, of the process.
        memory_available: Memory of the GPU; None without one.
        disk: Size of cache, checkpoints and result.
        disk_free: Free space on their disk.
        push_to: Repo that the result would be pushed to; None if it is not pushed.
        checkpoints_at: Branch that checkpoints would be uploaded to; None if they are not.
    """

    settings: dict[str, Any]
    base: str
    base_license: str | None
    dataset: str
    dataset_license: str | None
    images: int
    captions_from: str | None
    skipped: int
    held_out: int
    buckets: dict[str, int]
    class_images: int
    preserved: str | None
    size: tuple[int, int]
    weights: int
    learning_rate: float | None
    token_embedding_lr: float | None
    steps: int
    images_per_step: int
    device: str
    encode_seconds: float
    step_seconds: float
    train_seconds: float
    generate_seconds: float
    previews: int
    gallery: int
    memory: int
    memory_available: int | None
    disk: int
    disk_free: int
    push_to: str | None
    checkpoints_at: str | None


def dry_run(
    config: TrainingConfig, *, resume: str | None = None, callback: Callback = default_callback
) -> DryRunReport:
    """Resolve and check everything, and measure one step on a few of the images.

    Nothing is written but downloads; the run's folder is not made.

    Raises:
        HubloraError: The training could not start, for lack of disk space for example.
    """
    # Over 60 lines because every figure of the report has one here.
    from hublora.training.accelerator import device_name
    from hublora.training.distributed import join_processes
    from hublora.training.preservation import preservation_note
    from hublora.training.session import total_steps
    from hublora.training.setup import split_images

    join_processes()
    with local_checkpoint(resume) as checkpoint:
        ready = prepare_run(config, checkpoint, callback)
    config, source = ready.config, ready.source
    train_indices, held_out = split_images(config, len(source.examples))
    sizes = resolutions(config, ready.base, ready.pipe)
    callback(Note("Measuring one step …"))
    trial = _try(ready)
    images = trial.session.images_per_step
    images_per_epoch = epoch_length(config, source, sizes)
    steps = total_steps(config, images_per_epoch, images)
    done = _step_of(ready.checkpoint)
    left = steps - done
    previews, gallery = count_generated(
        trial.session, ready.base, source, images_per_epoch, (done, steps)
    )
    disk, free = _check_disk(config, trial, steps)
    return DryRunReport(
        settings=config.flat(),
        base=ready.base.label,
        base_license=ready.base.license,
        dataset=source.id,
        dataset_license=source.license,
        images=len(train_indices),
        captions_from=source.captions_from,
        skipped=len(source.skipped),
        held_out=len(held_out),
        buckets={f"{b.size[1]}×{b.size[0]}": len(b.members) for b in trial.buckets}
        if config.data.has_several_shapes
        else {},
        class_images=_missing_class_images(ready),
        preserved=preservation_note(config, [c for one in source.examples for c in one.captions]),
        size=trial.session.data.size,
        weights=sum(parameter.numel() for parameter in trial.session.parameters),
        learning_rate=config.optimizer.learning_rate if trial.session.adapted else None,
        token_embedding_lr=config.token_embedding_lr if trial.session.tokens else None,
        steps=left,
        images_per_step=images,
        device=device_name(ready.accelerator),
        encode_seconds=trial.encode_seconds,
        step_seconds=trial.step_seconds,
        train_seconds=left * trial.step_seconds,
        generate_seconds=(previews + gallery) * _image_seconds(ready, trial),
        previews=previews,
        gallery=gallery,
        memory=peak_memory(),
        memory_available=_gpu_memory(),
        disk=disk,
        disk_free=free,
        push_to=config.hub.model_id if config.hub.push else None,
        checkpoints_at=ready.checkpoints_at,
    )


def _image_seconds(ready: PreparedRun, trial: _Trial) -> float:
    """Return the estimated seconds of one generated image: those of its denoiser's forward passes,
    of which a training step of an image is about three."""
    session = trial.session
    plan = plan_gallery(session.config, ready.base, ready.source, session.data.size)[0].plan
    images = session.images_per_step / ready.accelerator.num_processes
    passes = plan.num_inference_steps * (2 if plan.guidance_scale > 1 else 1)
    return passes * trial.step_seconds / images / _PASSES_OF_A_STEP


@dataclass(frozen=True)
class _Trial:
    """A session on a few of the images, and estimates for all of them.

    Attributes:
        session: Session on the first images.
        buckets: Buckets of all images.
        encode_seconds: Estimated duration of encoding what is not cached.
        cache_bytes: Estimated size of what is not cached.
        step_seconds: Measured duration of a step.
    """

    session: Session
    buckets: Sequence[Bucket]
    encode_seconds: float
    cache_bytes: float
    step_seconds: float


def _try(ready: PreparedRun) -> _Trial:
    """Encode the images of one batch into a cache of their own, and do two steps."""
    from hublora.data.crops import assign_buckets
    from hublora.training.failures import explained

    config, source = ready.config, ready.source
    images = max(2, config.train_batch_size)
    with trial(ready, images) as (session, seconds):
        with explained(config, session.data.size[0]):
            step_seconds = measure_step(session)
        size = _file_bytes(session.data.folders)
    some = source.examples[:images]
    *smaller, (pixels, step) = resolutions(config, ready.base, ready.pipe)
    pairs = reference_encoders(ready.base.family, ready.pipe, ready.accelerator.device)
    fit = pairs.size if pairs else None
    buckets = assign_buckets(
        source.examples, config.data, pixels, step, smaller, reference_size=fit
    )
    some_buckets = assign_buckets(some, config.data, pixels, step, reference_size=fit)
    few = sum(one.plan.rows for one in some_buckets)
    rows = sum(one.plan.rows for one in buckets)
    if config.dreambooth.prior_preservation:
        few, rows = 2 * few, rows + config.dreambooth.num_class_images
    missing = 0.0 if _is_cached(ready, buckets) else rows / few
    return _Trial(session, buckets, seconds * missing, size * missing, step_seconds)


@contextmanager
def trial(ready: PreparedRun, images: int) -> Iterator[tuple[Session, float]]:
    """Yield a session on the first images at the largest resolution, encoded into a cache of its
    own, and the seconds that encoding took."""
    from hublora.data import join
    from hublora.training.setup import start_session

    config, source, base = ready.config, ready.source, ready.base
    some = replace(source, examples=source.examples[:images])
    with temporary_folder("plan") as folder:
        alone = config.updated({"data.cache_dir": folder, "holdout.images": 0, **_largest(config)})
        # Class images are not generated yet; these take as long.
        of_class = len(some.examples) if config.dreambooth.prior_preservation else 0
        trained_on = join(some, some) if of_class else some
        started = time.monotonic()
        data = encode(alone, base, ready.pipe, trained_on, ready.accelerator.device)
        seconds = time.monotonic() - started
        initial = initial_updates(alone, base, ready.pipe)
        session = start_session(
            alone,
            ready.pipe,
            data,
            ready.inputs,
            ready.accelerator,
            initial,
            class_images=of_class,
        )
        attach_assistant(session, base)
        yield session, seconds


def _largest(config: TrainingConfig) -> dict[str, Any]:
    """Return the changes of the settings that leave the largest of several resolutions alone."""
    if len(config.data.sides) < 2:
        return {}
    batch = config.data.bucket_batch if config.data.aspect_buckets else None
    return {"data.resolution": config.data.sides[-1], "data.bucket_batch": batch}


@contextmanager
def local_checkpoint(resume: str | None) -> Iterator[str | None]:
    """Yield the path of a checkpoint; that of a repo is downloaded into a temporary folder."""
    if not is_repo(resume):
        yield resume
        return
    with temporary_folder("plan") as folder:
        yield str(download_checkpoint(str(resume), folder))


def _check_disk(config: TrainingConfig, trial: _Trial, steps: int) -> tuple[int, int]:
    """Return the disk space that the training needs, and what is free, in bytes.

    Raises:
        ConfigError: Too little is free.
    """
    needed = int(_SPARE * (trial.cache_bytes + _output_bytes(trial.session, steps)))
    free = shutil.disk_usage(nearest_folder(config.run_folder)).free
    if needed > free:
        raise ConfigError(
            f"The training needs about {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are "
            "free.",
            "Free some space, or lower data.crop_variants or --checkpoints-total-limit.",
        )
    return needed, free


def measure_step(session: Session) -> float:
    """Return the seconds of a step, of the slowest phase if trainables start at several steps; the
    first step, which warms up, is not counted."""
    import torch

    from hublora.training.events import StepDone
    from hublora.training.loop import train as train_steps

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    slowest = 0.0
    for first in sorted({session.step, *session.start_step.values()}):
        if first > session.step:  # a later phase; its schedule is that of its steps
            session.step, session.schedule.last_epoch = first, first - 1
            session.schedule.step()
        session.is_over = False
        started, seconds = time.monotonic(), 0.0
        steps = (event for event in train_steps(session) if isinstance(event, StepDone))
        for event, _ in zip(steps, range(2), strict=False):
            event.loss.item()  # waits for the device
            started, seconds = time.monotonic(), time.monotonic() - started
        slowest = max(slowest, seconds)
    return slowest


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0


def _missing_class_images(ready: PreparedRun) -> int:
    """Return the number of class images to generate."""
    if not ready.config.dreambooth.prior_preservation:
        return 0
    plan, folder = plan_class_images(ready.config, ready.base, ready.pipe)
    return count_missing(ready.config, folder, plan.prompt)


def _is_cached(ready: PreparedRun, buckets: Sequence[Bucket]) -> bool:
    """Tell whether the cache has the latents of all images."""
    from hublora.data.latent_cache import BucketCache

    key = image_key(ready.base, ready.accelerator.device)
    caches = [BucketCache(ready.source, ready.config.data, one, key) for one in buckets]
    return all(cache.done == cache.rows for cache in caches)


def _output_bytes(session: Session, steps: int) -> int:
    """Return the size of the checkpoints that exist at once, and of the result, in bytes."""
    config = session.config
    weights = sum(p.numel() * p.element_size() for p in session.parameters)
    made = -(-steps // config.checkpoint.steps)
    limit = config.checkpoint.total_limit
    kept = made if limit is None else min(made, limit + 1)
    return weights * (4 * kept + 2)  # the adapter, its weights and two moments; two layouts


def _file_bytes(folders: Iterable[Path]) -> int:
    return sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())


def _gpu_memory() -> int | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
