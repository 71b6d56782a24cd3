"""Generates images during a training: previews and the gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.families import text_encoders_of
from hublora.generation.sample import Sampling, sample_many, sampling_for
from hublora.progress import Callback, Progress
from hublora.resolution.base import Base
from hublora.training.run_folder import PREVIEWS
from hublora.workflows.train.gallery_files import gallery_sheet
from hublora.workflows.train.gallery_prompts import embedded_inputs

if TYPE_CHECKING:
    from PIL import Image

    from hublora.data import Example, Source
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.session import Session

BEFORE = 3  # images of the base alone: at least this many, if the gallery has them
_REFERENCE_PIXELS = 1024 * 1024
_STEP = 32  # that the sides of images follow references in
_CAPTIONS = 4  # most captions that serve as prompts without validation prompts


@dataclass(frozen=True)
class PlannedImage:
    """An image of the gallery that is still to be generated.

    Attributes:
        plan: Sampling settings of the image.
        pair: Training example whose references the image has; None without references.
    """

    plan: Sampling
    pair: Example | None = None

    @cached_property
    def references(self) -> tuple[Image.Image, ...]:
        """Reference images in RGB, in order; of large ones about a megapixel, which is what base
        models read and what is published beside the image."""
        from hublora.data.references import open_references

        return tuple(map(_reduced, open_references(self.pair))) if self.pair else ()


def _reduced(image: Image.Image) -> Image.Image:
    from PIL.Image import Resampling

    scale = (_REFERENCE_PIXELS / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Resampling.LANCZOS)


@dataclass(frozen=True)
class GeneratedImage:
    """A generated image.

    Attributes:
        image: RGB image.
        planned: Sampling settings and references of the image.
    """

    image: Image.Image
    planned: PlannedImage

    @property
    def plan(self) -> Sampling:
        """Sampling settings of the image."""
        return self.planned.plan

    @property
    def references(self) -> tuple[Image.Image, ...]:
        """Reference images in RGB, in order."""
        return self.planned.references


def plan_gallery(
    config: TrainingConfig, base: Base, source: Source, size: tuple[int, int]
) -> list[PlannedImage]:
    """Return the images of the gallery: of validation prompts, else of some captions.

    Of a training on pairs, a caption has its own references, and the validation prompts have those
    of some examples in turn. The sides of such an image follow its first reference.

    Args:
        config: Settings of the training.
        base: Base model of the run.
        source: Images and captions of the run.
        size: (h, w) of the images in pixels.
    """
    settings = config.validation
    examples = _some_examples(source, settings.num_images)
    prompts = settings.prompts or [one.captions[0] for one in examples]
    count = settings.num_images
    if not settings.prompts:  # `num_images` in all, over one or more captions
        count = -(-count // len(prompts))
    planned = []
    for prompt, example in zip(prompts, cycle(examples), strict=False):
        pair = example if example.references else None
        height, width = _size_like(pair, size) if pair else size
        for index in range(count):
            plan = sampling_for(
                base,
                prompt,
                negative_prompt=settings.negative_prompt or None,
                seed=config.seed + index,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                width=width,
                height=height,
            )
            planned.append(PlannedImage(plan, pair))
    return planned


def _some_examples(source: Source, most: int) -> list[Example]:
    """Return a few examples of different captions."""
    every = max(1, len(source.examples) // most)
    found = {one.captions[0]: one for one in reversed(source.examples[::every])}
    return list(found.values())[::-1][: min(most, _CAPTIONS)]


def _size_like(pair: Example, size: tuple[int, int]) -> tuple[int, int]:
    """Return (h, w) in about as many pixels as `size`, in the aspect ratio of the first reference;
    sides are multiples of 32."""
    width, height = pair.reference_sizes[0]
    ratio, area = (width / height) ** 0.5, (size[0] * size[1]) ** 0.5
    if width == height:
        return size
    return tuple(max(_STEP, round(side / _STEP) * _STEP) for side in (area / ratio, area * ratio))


def count_generated(
    session: Session, base: Base, source: Source, images_per_epoch: int, steps: tuple[int, int]
) -> tuple[int, int]:
    """Return the numbers of preview images and of final images that a training generates.

    Args:
        session: Session with the settings of the training.
        base: Base model of the run.
        source: Images and captions of the run.
        images_per_epoch: Training images, repeats included.
        steps: Optimizer steps done before the training, and its last step.
    """
    settings = session.config.validation
    plans = plan_gallery(session.config, base, source, session.data.size)
    first, last = steps
    times = 0
    if settings.steps is not None:
        times = (last - 1) // settings.steps - first // settings.steps
    elif settings.epochs is not None:
        images, every = session.images_per_step, settings.epochs * images_per_epoch
        times = (last - 1) * images // every - first * images // every
    prompts = len({one.plan.prompt for one in plans})
    return times * len(plans), len(plans) + min(len(plans), max(prompts, BEFORE))


def generate_images(
    session: Session,
    plans: Sequence[PlannedImage],
    callback: Callback,
    name: str,
    adapter: bool = True,
) -> list[GeneratedImage]:
    """Generate images with the current weights, or with the base alone.

    They are generated with the base that people use, where it is another one than is trained on.

    Args:
        session: Session between two steps; unchanged afterwards.
        plans: Each image.
        callback: Called with each event (`hublora.progress.Event`).
        name: Name of the progress.
        adapter: Whether adapter and token embeddings are active.
    """
    inference = _inference if session.generation is None else _inference_elsewhere
    with inference(session, adapter) as pipe:
        images = sample_many(
            pipe,
            [one.plan for one in plans],
            lambda done, total: callback(Progress(name, done, total)),
            [embedded_inputs(session.family, pipe, one, session.embedded_prompts) for one in plans],
            [one.references for one in plans],
        )
        return [GeneratedImage(image, one) for image, one in zip(images, plans, strict=True)]


def generate_preview(session: Session, base: Base, source: Source, callback: Callback) -> Path:
    """Generate the gallery as one sheet in the run folder; return its path."""
    plans = plan_gallery(session.config, generating_base(session, base), source, session.data.size)
    images = generate_images(session, plans, callback, "Generating a preview")
    path = session.config.run_folder / PREVIEWS / f"step-{session.step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    gallery_sheet(images, f"Step {session.step}").save(path)
    return path


def generating_base(session: Session, base: Base) -> Base:
    """Return the base that images of a training are generated with."""
    return base if session.generation is None else session.generation.base


@contextmanager
def _inference_elsewhere(session: Session, adapter: bool) -> Iterator[Any]:
    """Yield the pipeline of the generation base with the current adapter, or without; the base that
    is trained on makes place for it on a GPU."""
    import torch

    device, generation = session.accelerator.device, session.generation
    pipe, family = generation.pipe, session.family
    trained = [one for name, one in session.trained.items() if name != family.denoiser]
    random_state = torch.get_rng_state()
    try:
        if device.type != "cpu":
            session.move_denoiser("cpu")
            for model in trained:
                model.to("cpu")
        generation.move(device)
        generation.activate(session.adapter() if adapter else None)
        with own_precision(getattr(pipe, family.vae)):
            yield pipe
    finally:
        generation.move("cpu")
        session.move_denoiser(device)
        for model in trained:
            model.to(device)
        torch.set_rng_state(random_state)


@contextmanager
def _inference(session: Session, adapter: bool) -> Iterator[Any]:
    """Yield the pipeline in evaluation mode, then restore the training state."""
    import torch

    pipe, accelerator = session.pipe, session.accelerator
    models = list(session.trained.values())
    random_state = torch.get_rng_state()  # dropout samples from it; inference must not change it
    for model in models:
        model.eval()
    for name, model in pipe.components.items():
        if isinstance(model, torch.nn.Module) and name != session.family.denoiser:
            model.to(accelerator.device)
    try:
        with (
            session.averaged() if adapter else session.base_alone(),
            session.without_assistant(),
            accelerator.autocast(),
            own_precision(getattr(pipe, session.family.vae)),
        ):
            yield pipe
    finally:
        for model in models:
            model.train()
        for name in (session.family.vae, *text_encoders_of(session.family, pipe)):
            if name not in session.trained:
                getattr(pipe, name).to("cpu")
        torch.set_rng_state(random_state)


@contextmanager
def own_precision(vae: Any) -> Iterator[None]:
    """Decode in the dtype of the VAE's weights inside this context; some overflow in float16."""
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
