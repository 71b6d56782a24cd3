"""Generates images with a composition: prompts expanded and encoded, facts for the metadata."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.generation.prompt_placeholders import Expanded, TriggerMode
from hublora.progress import Callback, Note, Progress, no_callback
from hublora.quiet import quiet_loading

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.composition import Composition
    from hublora.generation.conditions import Conditions
    from hublora.generation.sample import Sampling


_TEXTS = ("prompt", "negative_prompt")  # of a pipeline's call


def generate(
    pipe: Any,
    plans: Sequence[Sampling],
    trigger: TriggerMode,
    callback: Callback = no_callback,
    conditions: Conditions | None = None,
) -> Iterator[Image.Image]:
    """Generate the plans one after the other with a pipeline that `load` returned.

    Args:
        pipe: The pipeline.
        plans: Settings of each image.
        trigger: As for `run`.
        callback: Called with each event (`hublora.progress.Event`).
        conditions: Image inputs.

    Raises:
        ConfigError: A prompt names a missing adapter, or cannot be encoded.
    """
    from hublora.generation.conditions import conditioned, inputs_of
    from hublora.generation.sample import sample

    sized = conditions is not None and conditions.sets_size
    with quiet_loading():
        pipeline = conditioned(pipe, conditions) if conditions else pipe
    step_size = pipe.hublora.base.family.size_step(pipe)
    total, done = sum(plan.num_inference_steps for plan in plans), 0
    noted: set[str] = set()
    expansions = {plan.prompt: pipe.hublora.expand(plan.prompt, trigger) for plan in plans}
    for sentence in _additions(expansions):
        callback(Note(sentence))
    for plan in plans:
        before, steps = done, plan.num_inference_steps

        def tell(step: int, before: int = before, steps: int = steps) -> None:
            share = step / pipeline.num_timesteps  # from an image there are fewer, with Heun more
            callback(Progress("Generating", before + round(share * steps), total))

        listener = no_callback if plan.prompt in noted else callback
        inputs = prompt_inputs(pipe, plan, expansions[plan.prompt], listener)
        noted.add(plan.prompt)
        if conditions is not None and conditions.has_images:
            size = _size_for(conditions, plan, step_size, pipe, listener)
            inputs = {**inputs, **inputs_of(conditions, size)}
        yield sample(
            pipeline,
            plan,
            tell,
            inputs=inputs,
            sized=sized,
            references=conditions.references if conditions is not None else (),
        )
        done += plan.num_inference_steps


def _size_for(
    conditions: Conditions, plan: Sampling, step: int, pipe: Any, callback: Callback
) -> tuple[int, int] | None:
    """Return the size that input images have; report one that is smaller than the input."""
    from hublora.generation.conditions import fitted_size

    image = conditions.sizing_image
    if image is None:
        return None
    side = pipe.hublora.base.family.resolution(pipe)
    width, height = fitted_size(image, plan, step, side)
    if not (plan.width or plan.height) and image.width * image.height > 2 * width * height:
        callback(
            Note(
                f"The input is {image.width}×{image.height}, and this base is made for "
                f"{side}×{side}: {width}×{height} is generated. Set width and height for another "
                "size."
            )
        )
    return width, height


def _additions(expansions: Mapping[str, Expanded]) -> Iterator[str]:
    """Return notes on which trigger words were put in front of which prompts."""
    prompts_of: dict[tuple[str, ...], list[str]] = {}
    for prompt, expanded in expansions.items():
        prompts_of.setdefault(expanded.added, []).append(prompt)
    for added, prompts in prompts_of.items():
        if not added:
            continue
        where = f" of {', '.join(map(repr, prompts))}"
        if len(prompts) == len(expansions):
            where = f" of all {len(prompts)} prompts" if len(prompts) > 1 else ""
        yield f"Trigger words put in front{where}: {', '.join(added)}"


def image_facts(
    composition: Composition,
    plan: Sampling,
    trigger: TriggerMode,
    conditions: Conditions | None = None,
) -> dict[str, Any]:
    """Return an image's metadata, but for its size."""
    stated = conditions.stated if conditions is not None and conditions.has_images else {}
    expanded = composition.expand(plan.prompt, trigger).text
    return composition.facts() | {
        "sampling": plan.facts(),
        "scheduler": plan.scheduler or composition.scheduler,
        "versions": library_versions(),
        "trigger": trigger,
        **({"expanded_prompt": expanded} if expanded != plan.prompt else {}),
        **({"conditions": dict(stated)} if stated else {}),
    }


def save(
    image: Image.Image,
    path: Path,
    composition: Composition,
    plan: Sampling,
    trigger: TriggerMode = "off",
    conditions: Conditions | None = None,
) -> None:
    """Write a PNG with its metadata."""
    from hublora.generation.metadata import save_image

    facts = image_facts(composition, plan, trigger, conditions)
    save_image(image, path, facts | {"size": f"{image.width}x{image.height}"})


@functools.cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that an image depends on."""
    return {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")}


def prompt_inputs(
    pipe: Any, plan: Sampling, expanded: Expanded, callback: Callback
) -> Mapping[str, Any]:
    """Return the arguments of the pipeline's call that state prompts, or their embeddings, and
    guidance.

    Args:
        pipe: A pipeline with its composition in `pipe.hublora`.
        plan: Settings of the image.
        expanded: Text of the prompt with trigger words, and those that were added.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        ConfigError: A prompt cannot be encoded.
    """
    from hublora.generation import prompts

    family = pipe.hublora.base.family
    texts = (expanded.text, pipe.hublora.expand(plan.negative_prompt, "off").text)
    if (
        not prompts.can_encode(pipe)
        and prompts.has_weights(texts[0])
        and not prompts.has_weights(plan.prompt)
    ):
        raise ConfigError(
            f"The trigger words {', '.join(expanded.added) or texts[0]} of its card have weights, "
            "which need the library compel.",
            "Install it with pip install 'hublora[prompts]', or write the words into the prompt "
            'without weights and set trigger="off".',
        )
    arguments = family.call_arguments(pipe, *texts, plan.guidance_scale)
    longest = family.max_tokens(pipe)
    tokens = max(family.count_tokens(pipe, texts))
    weighted = any(prompts.has_weights(text) for text in texts)
    if tokens <= longest and not weighted:
        return arguments
    if weighted or prompts.can_encode(pipe):
        encoded = prompts.encode(pipe, *texts)
        others = {name: one for name, one in arguments.items() if name not in _TEXTS}
        return {**others, **encoded}
    advice = ""
    if prompts.reads_clip(pipe):
        advice = " Whole it is with: pip install 'hublora[prompts]'"
    callback(
        Note(
            f"The prompt has {tokens} tokens, and the base reads {longest}: "
            f"the rest is cut.{advice}",
            True,
        )
    )
    return arguments
