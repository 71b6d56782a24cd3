"""Encodes the gallery's prompts before a training, so that its text encoders can go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hublora.families import Conditioning, Family, Pipeline, text_encoders_of
from hublora.generation.sample import Sampling

if TYPE_CHECKING:
    import torch

    from hublora.workflows.train.gallery import PlannedImage

# A text, and the name of the example whose references the text encoder sees beside it, or "".
EmbeddedText = tuple[str, str]


def embed_prompts(
    family: Family, pipe: Pipeline, plans: Sequence[PlannedImage], device: torch.device
) -> dict[EmbeddedText, Conditioning]:
    """Return text -> its conditioning, [1, …] on the CPU, of all prompts and negative prompts.

    Args:
        family: Family of the pipeline.
        pipe: Pipeline of the base model, its text encoders on the CPU before and after.
        plans: Each image.
        device: Device that encodes.
    """
    import torch

    texts = {
        (text, seen_name(family, one)): one
        for one in plans
        for text in family.texts_of_call(_call(family, pipe, one.plan))
    }
    encoders = [getattr(pipe, name) for name in text_encoders_of(family, pipe)]
    for encoder in encoders:
        encoder.to(device)
    with torch.no_grad():
        found = {key: _encode(family, pipe, key[0], one) for key, one in texts.items()}
    for encoder in encoders:
        encoder.to("cpu")
    return {
        key: {name: tensor.cpu() for name, tensor in conditioning.items()}
        for key, conditioning in found.items()
    }


def release_text_encoders(family: Family, pipe: Pipeline) -> None:
    """Take the text encoders out of the pipeline; they may be larger than all the rest."""
    pipe.register_modules(**dict.fromkeys(text_encoders_of(family, pipe)))


def embedded_inputs(
    family: Family,
    pipe: Pipeline,
    one: PlannedImage,
    embedded: Mapping[EmbeddedText, Conditioning],
) -> dict[str, Any] | None:
    """Return the arguments of the pipeline's call with embeddings in place of texts; None if a text
    is not embedded."""
    call, seen = _call(family, pipe, one.plan), seen_name(family, one)
    texts = family.texts_of_call(call)
    if not {(text, seen) for text in texts} <= set(embedded):
        return None
    return family.with_embeddings(pipe, call, {text: embedded[text, seen] for text in texts})


def seen_name(family: Family, one: PlannedImage) -> str:
    """Return the name of the example whose references the text encoder sees beside the prompt; ""
    where it sees none."""
    return one.pair.name if one.pair is not None and family.references.in_prompts else ""


def _encode(family: Family, pipe: Pipeline, text: str, one: PlannedImage) -> Conditioning:
    if family.references.in_prompts:
        return family.encode_instruction(pipe, text, one.references)
    return family.encode_prompts(pipe, [text])


def _call(family: Family, pipe: Pipeline, plan: Sampling) -> dict[str, Any]:
    return family.call_arguments(pipe, plan.prompt, plan.negative_prompt, plan.guidance_scale)
