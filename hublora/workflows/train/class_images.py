"""Images of the class that prior preservation shows, drawn once by the base alone.

    <cache>/class/<key>/00000.png …   image k has the seed `seed + k`

The key is made of everything that decides what an image shows, so that the next training with the
same base and prompt finds them. A folder of one's own is filled up with what it lacks.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.cards.format import format_count
from hublora.data.folder import list_images
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


def count_missing(folder: Path, count: int) -> int:
    """Return how many of `count` class images are still to be drawn."""
    return max(0, count - len(list_images(folder)))


def plan_class_images(config: TrainingConfig, base: Base, pipe: Any) -> tuple[Sampling, Path]:
    """Return how the first image of the class is drawn (the others differ by their seed), and
    the folder of all of them: the one that was named, else one in the cache."""
    (height, width), _ = shapes(config, base, pipe)
    prompt = str(config.dreambooth.class_prompt)
    plan = sampling_for(base, prompt, seed=config.seed, width=width, height=height)
    if config.dreambooth.class_folder is not None:
        return plan, config.dreambooth.class_folder.expanduser()
    dtype = str(getattr(pipe, base.family.denoiser).dtype)
    about = {"base": base.name, "commit": base.commit, "dtype": dtype, **plan.facts()}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return plan, config.data.cache_root / "class" / key


def open_class_images(
    config: TrainingConfig,
    base: Base,
    pipe: Any,
    accelerator: Accelerator,
    callback: Callback,
) -> Source | None:
    """Return the class images, drawing those that are missing; None if none are wanted.

    A process that dies keeps what it has drawn, and the next one goes on.

    Args:
        config: The settings.
        base: The base.
        pipe: Pipeline of the base without any adapter, on the CPU before and after.
        accelerator: Device and precision.
        callback: Is told what happens.
    """
    from hublora.data import first, open_source, with_captions

    wanted = config.dreambooth
    if not wanted.prior_preservation:
        return None
    plan, folder = plan_class_images(config, base, pipe)
    folder.mkdir(parents=True, exist_ok=True)
    if missing := count_missing(folder, wanted.num_class_images):
        callback(Note(f"Drawing {format_count(missing, 'image')} of {plan.prompt!r} into {folder}"))
        _draw(folder, missing, plan, base, pipe, accelerator, callback)
    settings = config.data.model_copy(
        update={
            **dict.fromkeys(("dataset", "archive", "revision", "caption_column")),
            "folder": folder,
            "default_caption": plan.prompt,
            "max_train_samples": None,
            "masks": False,
            "streaming": False,
            "folder_repeats": False,
            "crop_on_faces": False,
            "repeats": 1,
        }
    )
    source = with_captions(open_source(settings), lambda example: (plan.prompt,))
    return first(source, wanted.num_class_images)


def _draw(
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
            callback(Progress("Drawing images of the class", done + 1, missing))
    pipe.to("cpu")
