"""Images of a training: previews on the way, the gallery and before/after at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.generation.sample import Sampling, sample_many, sampling_for
from hublora.progress import Callback, Progress
from hublora.resolution.base import Base

if TYPE_CHECKING:
    from PIL import Image

    from hublora.data import Source
    from hublora.training.session import Session

BEFORE = 3  # images of the base alone, at least, if there are so many
_CAPTIONS = 4  # prompts at most when no validation prompt was given


@dataclass(frozen=True)
class Drawn:
    """An image and how it was drawn."""

    image: Image.Image
    plan: Sampling


def plan_gallery(session: Session, base: Base, source: Source) -> list[Sampling]:
    """Return what the gallery shows: the validation prompts, else some of the captions."""
    settings = session.config.validation
    prompts = settings.prompts or _some_captions(source, settings.num_images)
    count = settings.num_images
    if not settings.prompts:  # that many in all, and one prompt may be all that there is
        count = -(-count // len(prompts))
    height, width = session.data.size
    return [
        sampling_for(
            base,
            prompt,
            negative_prompt=settings.negative_prompt or None,
            seed=session.config.seed + index,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            width=width,
            height=height,
        )
        for prompt in prompts
        for index in range(count)
    ]


def _some_captions(source: Source, most: int) -> list[str]:
    every = max(1, len(source.examples) // most)
    captions = [one.captions[0] for one in source.examples[::every]]
    return list(dict.fromkeys(captions))[: min(most, _CAPTIONS)]


def count_drawn(
    session: Session, base: Base, source: Source, shown: int, steps: tuple[int, int]
) -> tuple[int, int]:
    """Return how many images a training draws on the way and at its end.

    Args:
        session: The training, or one like it.
        base: Base model of the run.
        source: Images of the run.
        shown: Images of one pass.
        steps: The one that it begins after, and its last.
    """
    settings, plans = session.config.validation, plan_gallery(session, base, source)
    first, last = steps
    times = 0
    if settings.steps is not None:
        times = (last - 1) // settings.steps - first // settings.steps
    elif settings.epochs is not None:
        images, every = session.images_per_step, settings.epochs * shown
        times = (last - 1) * images // every - first * images // every
    prompts = len({plan.prompt for plan in plans})
    return times * len(plans), len(plans) + min(len(plans), max(prompts, BEFORE))


def draw(
    session: Session, plans: Sequence[Sampling], callback: Callback, name: str, adapter: bool = True
) -> list[Drawn]:
    """Draw the plans with the adapter as it is now, or with the base alone."""
    with _drawing(session, adapter) as pipe:
        images = sample_many(
            pipe, list(plans), lambda done, total: callback(Progress(name, done, total))
        )
        return [Drawn(image, plan) for image, plan in zip(images, plans, strict=True)]


def draw_preview(session: Session, base: Base, source: Source, callback: Callback) -> Path:
    """Draw the gallery into one sheet in the run folder; return its path."""
    drawn = draw(session, plan_gallery(session, base, source), callback, "Drawing a preview")
    path = session.config.run_folder / "previews" / f"step-{session.step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    gallery_sheet(drawn, f"Step {session.step}").save(path)
    return path


def gallery_sheet(drawn: Sequence[Drawn], title: str | None = None) -> Image.Image:
    """Return a sheet with one row per prompt."""
    from hublora.image_grid import sheet

    prompts = list(dict.fromkeys(one.plan.prompt for one in drawn))
    rows = [[one.image for one in drawn if one.plan.prompt == prompt] for prompt in prompts]
    return sheet(rows, row_labels=prompts, title=title)


def before_after_sheet(
    before: Sequence[Drawn], after: Sequence[Drawn], learned: str = "adapter"
) -> Image.Image:
    """Return a sheet that shows the base and what was learned at the same prompts and seeds."""
    from hublora.image_grid import sheet

    rows = [[old.image, new.image] for old, new in zip(before, after, strict=True)]
    labels = [f"{one.plan.prompt} (seed\N{NO-BREAK SPACE}{one.plan.seed})" for one in after]
    return sheet(rows, row_labels=labels, column_labels=["base", f"with the {learned}"])


@contextmanager
def _drawing(session: Session, adapter: bool) -> Iterator[Any]:
    """Lend the pipeline for drawing, then put everything back as the loop needs it."""
    import torch

    pipe, accelerator = session.pipe, session.accelerator
    models = list(session.trained.values())
    random_state = torch.get_rng_state()  # dropout draws from it; drawing must not change it
    for model in models:
        model.eval()
    pipe.to(accelerator.device)
    try:
        with (
            session.averaged() if adapter else session.base_alone(),
            accelerator.autocast(),
            own_precision(getattr(pipe, session.family.vae)),
        ):
            yield pipe
    finally:
        for model in models:
            model.train()
        for name in (session.family.vae, *session.family.text_encoders):
            if name not in session.trained:
                getattr(pipe, name).to("cpu")
        torch.set_rng_state(random_state)


@contextmanager
def own_precision(vae: Any) -> Iterator[None]:
    """Let the VAE decode in the precision of its weights; some overflow in autocast's float16."""
    import torch

    decode = vae.decode

    def exactly(latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        with torch.autocast(latents.device.type, enabled=False):
            return decode(latents.to(vae.dtype), *args, **options)

    vae.decode = exactly
    try:
        yield
    finally:
        del vae.decode
