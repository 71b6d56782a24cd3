"""Class images for prior preservation, generated once by the base alone.

    <cache>/class/<key>/00000.png …   image k has the seed `seed + k`

The key is a hash of all that determines the images, so that the next training with the same base
and prompt reuses them. In a folder that the settings name, only missing images are generated.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.cards.format import format_count
from hublora.filesystem import write_atomically
from hublora.generation.sample import sampling_for
from hublora.progress import Callback, Note, Progress
from hublora.resolution.base import Base
from hublora.workflows.train.gallery import own_precision
from hublora.workflows.train.image_sizes import shapes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hublora.data import Source
    from hublora.generation.sample import Sampling
    from hublora.training.config.training_config import TrainingConfig


def count_missing(config: TrainingConfig, folder: Path, prompt: str) -> int:
    """Return how many class images are still to be generated: damaged ones do not count."""
    from hublora.data import open_uncaptioned

    usable = open_uncaptioned(folder, prompt, config.data).examples if folder.is_dir() else ()
    return max(0, config.dreambooth.num_class_images - len(usable))


def plan_class_images(config: TrainingConfig, base: Base, pipe: Any) -> tuple[Sampling, Path]:
    """Return the sampling settings of the first class image and the folder of all of them.

    The other images differ by their seed. The folder is `dreambooth.class_folder`, else one in the
    cache.
    """
    (height, width), _ = shapes(config, base, pipe)
    prompt = str(config.dreambooth.class_prompt)
    plan = sampling_for(base, prompt, seed=config.seed, width=width, height=height)
    if config.dreambooth.class_folder is not None:
        return plan, config.dreambooth.class_folder.expanduser()
    dtype = str(getattr(pipe, base.family.denoiser).dtype)
    about = {"base": base.name, "commit": base.version(), "dtype": dtype, **plan.facts()}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return plan, config.data.cache_root / "class" / key


def open_class_images(
    config: TrainingConfig,
    base: Base,
    pipe: Any,
    accelerator: Accelerator,
    callback: Callback,
) -> Source | None:
    """Return the class images, generating the missing ones; None without prior preservation.

    Every image is written when it is generated, so an interrupted process loses at most one.

    Args:
        config: Settings of the training.
        base: Base model of the run.
        pipe: Pipeline of the base without any adapter, on the CPU before and after.
        accelerator: Device and precision.
        callback: Called with each event (`hublora.progress.Event`).
    """
    from hublora.data import first, open_uncaptioned

    dreambooth = config.dreambooth
    if not dreambooth.prior_preservation:
        return None
    plan, folder = plan_class_images(config, base, pipe)
    folder.mkdir(parents=True, exist_ok=True)
    if missing := count_missing(config, folder, plan.prompt):
        images = format_count(missing, "class image")
        callback(Note(f"Generating {images} of {plan.prompt!r} into {folder}"))
        _generate(folder, missing, plan, base, pipe, accelerator, callback)
    source = open_uncaptioned(folder, plan.prompt, config.data)
    if note := source.skipped_note():
        callback(Note(f"Of the class images in {folder}, {note}", warning=True))
    return first(source, dreambooth.num_class_images)


def _generate(
    folder: Path,
    missing: int,
    plan: Sampling,
    base: Base,
    pipe: Any,
    accelerator: Accelerator,
    callback: Callback,
) -> None:
    from hublora.generation.sample import sample

    pipe.to(accelerator.device)
    numbers = (n for n in range(10**9) if not (folder / f"{n:05d}.png").exists())
    with accelerator.autocast(), own_precision(getattr(pipe, base.family.vae)):
        for done, number in zip(range(missing), numbers, strict=False):
            image = sample(pipe, plan.with_seed(plan.seed + number))
            encoded = io.BytesIO()
            image.save(encoded, "PNG")
            write_atomically(folder / f"{number:05d}.png", encoded.getvalue())
            callback(Progress("Generating class images", done + 1, missing))
    pipe.to("cpu")
