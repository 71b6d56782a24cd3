"""Generates images with a pipeline, one seed an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.families import family_of_pipeline
from hublora.generation.schedulers import check_scheduler, use_scheduler
from hublora.quoting import is_text

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.composition import Composition
    from hublora.resolution.base import Base

_MOST_GUIDANCE = 1000.0
_OF_SCHEDULER = ("timestep_spacing", "shift")


@dataclass(frozen=True)
class Sampling:
    """Settings of one image.

    Attributes:
        prompt: Text of the image.
        negative_prompt: Text that the image avoids.
        seed: Seed of the initial noise, sampled on the CPU, so equal on every device.
        num_inference_steps: Denoising steps.
        guidance_scale: Guidance, as the base's pipeline counts it: in most of them 1 or less turns
            it off, in some 0.
        width: Width in pixels; None is the base's own.
        height: Height in pixels; None is the base's own.
        scheduler: Scheduler as in diffusers or AUTOMATIC1111; None is the base's own.
        timestep_spacing: "leading", "linspace" or "trailing"; None is the scheduler's own.
        shift: Shift of the noise levels of flow matching, at any size, above 0; None is the
            scheduler's own, which may depend on the size.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    num_inference_steps: int = 30
    guidance_scale: float = 7.5
    width: int | None = None
    height: int | None = None
    scheduler: str | None = None
    timestep_spacing: str | None = None
    shift: float | None = None

    def __post_init__(self) -> None:
        for text in (self.prompt, self.negative_prompt):
            if not is_text(text):
                raise ConfigError(f"The prompt {text!r} is not valid UTF-8.", "Type it anew.")
        if not abs(self.guidance_scale) <= _MOST_GUIDANCE:
            raise ConfigError(
                f"guidance_scale must be between -1000 and 1000, got {self.guidance_scale:g}.",
                "7.5 is usual.",
            )
        check_scheduler(self.scheduler, self.timestep_spacing, self.shift)

    def with_seed(self, seed: int) -> Sampling:
        return replace(self, seed=seed)

    def facts(self) -> dict[str, Any]:
        """Return what was set, for an image's metadata."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


# What a card says under `inference.parameters` (the Hub's convention) -> field of Sampling.
_CARD_PARAMETERS = {
    "num_inference_steps": int,
    "guidance_scale": float,
    "negative_prompt": str,
    "width": int,
    "height": int,
}


def defaults_from_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling settings that a base's card recommends, empty if it says nothing."""
    inference = card.get("inference")
    parameters = inference.get("parameters") if isinstance(inference, Mapping) else None
    if not isinstance(parameters, Mapping):
        return {}
    found = {}
    for name, kind in _CARD_PARAMETERS.items():
        if isinstance(parameters.get(name), int | float | str):
            try:
                found[name] = kind(parameters[name])
            except ValueError:
                continue
    return found


def sampling_for(base: Base, prompt: str, **chosen: Any) -> Sampling:
    """Return sampling settings: as chosen, else as the base model's card states, else as usual for
    its family."""
    usual = base.family.sampling(base.name, base.folder)
    settings = asdict(usual) | defaults_from_card(base.card)
    settings |= {key: value for key, value in chosen.items() if value is not None}
    return Sampling(prompt=prompt, **settings)


def sampling_with(composition: Composition, prompt: str, **chosen: Any) -> Sampling:
    """Return sampling settings with the adapters of a pipeline: as chosen, else as a speed adapter
    among them brings them, else as `sampling_for`."""
    given = {key: value for key, value in chosen.items() if value is not None}
    brought = composition.speed.sampling() if composition.speed else {}
    if "scheduler" in given:  # the others are of the one that the adapter brings
        brought = {key: one for key, one in brought.items() if key not in _OF_SCHEDULER}
    return sampling_for(composition.base, prompt, **brought | given)


def use_scheduler_of(pipe: Any, plan: Sampling) -> None:
    """Give the pipeline the scheduler of a plan; see `use_scheduler`."""
    use_scheduler(pipe, plan.scheduler, plan.timestep_spacing, plan.shift)


def check_plan(pipe: Any, step: int, plan: Sampling) -> None:
    """Check what only the pipeline knows, before anything is generated.

    Args:
        pipe: A diffusers pipeline with the plan's scheduler.
        step: Pixels that sides must be a multiple of.
        plan: Settings of the image.

    Raises:
        ConfigError: Its size or its number of steps does not work with this pipeline.
    """
    for side in (plan.width, plan.height):
        if side is not None and side % step:
            lower = side // step * step
            raise ConfigError(
                f"The side {side} is not a multiple of {step}, as this base needs.",
                f"Use {max(lower, step)} or {lower + step}.",
            )
    most = pipe.scheduler.config.num_train_timesteps
    distilled = pipe.scheduler.config.get("original_inference_steps")  # LCM and TCD take of these
    if plan.num_inference_steps > min(most, distilled or most):
        whose = "The scheduler" if distilled else "This base"
        raise ConfigError(
            f"{whose} has {distilled or most} timesteps; {plan.num_inference_steps} steps are too "
            "many.",
            "4 to 8 are usually enough." if distilled else "30 are usually enough.",
        )


def sample(
    pipe: Any,
    plan: Sampling,
    on_step: Callable[[int], None] | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    sized: bool = False,
    references: Sequence[Image.Image] = (),
) -> Image.Image:
    """Generate one image.

    Args:
        pipe: A diffusers pipeline with its adapters active.
        plan: Settings of the image; its scheduler is the caller's to set
            (`use_scheduler_of`).
        on_step: Called after each denoising step with its number, from 1.
        inputs: Arguments of the pipeline that state prompts, guidance and images; None takes the
            plan's.
        sized: Whether the size is that of an image in `inputs`.
        references: Reference images of an edit model.
    """

    import torch

    def after(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step(index + 1)
        return tensors

    if inputs is None:
        inputs = family_of_pipeline(pipe).call_arguments(
            pipe, plan.prompt, plan.negative_prompt, plan.guidance_scale
        )
    if "image" not in inputs and inpaints(pipe):
        inputs = {**inputs, **_nothing_around(pipe, plan)}
    # An image-to-image pipeline takes the size of its image, and may accept no other.
    images: Mapping[str, Any] = {}
    if not sized:
        images = family_of_pipeline(pipe).image_arguments(pipe, references, plan.width, plan.height)
    pipe.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        result = pipe(
            **inputs,
            num_inference_steps=plan.num_inference_steps,
            **images,
            generator=torch.Generator("cpu").manual_seed(plan.seed),
            callback_on_step_end=after,
        )
    return result.images[0]


def inpaints(pipe: Any) -> bool:
    """Return whether a pipeline inpaints."""
    return "mask_image" in signature(pipe.__call__).parameters


def _nothing_around(pipe: Any, plan: Sampling) -> dict[str, Any]:
    """Return inputs with which an inpainting pipeline generates a whole image: a full mask."""
    from PIL import Image

    side = family_of_pipeline(pipe).resolution(pipe)
    size = (plan.width or side, plan.height or side)
    grey, white = Image.new("RGB", size, "grey"), Image.new("L", size, 255)
    return {"image": grey, "mask_image": white, "strength": 1.0}


def sample_many(
    pipe: Any,
    plans: list[Sampling],
    on_step: Callable[[int, int], None] | None = None,
    inputs: Sequence[Mapping[str, Any] | None] | None = None,
    references: Sequence[Sequence[Image.Image]] | None = None,
) -> Iterator[Image.Image]:
    """Generate the plans one after the other.

    Args:
        pipe: A diffusers pipeline with its adapters active.
        plans: Settings of each image.
        on_step: Called after each step with (steps done, steps in all).
        inputs: Inputs of each image, as `sample` takes them.
        references: References of each image, likewise.
    """
    total = sum(plan.num_inference_steps for plan in plans)
    done = 0

    def tell(step: int) -> None:
        if on_step is not None:
            on_step(done + step, total)

    for number, plan in enumerate(plans):
        yield sample(
            pipe,
            plan,
            tell,
            inputs=inputs[number] if inputs else None,
            references=references[number] if references else (),
        )
        done += plan.num_inference_steps


def image_difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference of two images in 8-bit levels, 0 to 255.

    Images of different size differ by 255.
    """
    import numpy as np

    if one.size != other.size:
        return 255.0
    left, right = (np.asarray(image.convert("RGB"), dtype=np.float32) for image in (one, other))
    return float(np.abs(left - right).mean())
