"""Encodes the gallery's prompts before a training, so that its text encoders can go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hublora.families import Conditioning, Family, Pipeline, text_encoders_of
from hublora.generation.sample import Sampling

if TYPE_CHECKING:
    import torch


def embed_prompts(
    family: Family, pipe: Pipeline, plans: Sequence[Sampling], device: torch.device
) -> dict[str, Conditioning]:
    """Return text -> its conditioning, [1, …] on the CPU, of all prompts and negative prompts.

    Args:
        family: Family of the pipeline.
        pipe: Pipeline of the base model, its text encoders on the CPU before and after.
        plans: Sampling settings of each image.
        device: Device that encodes.
    """
    import torch

    texts = dict.fromkeys(
        text for plan in plans for text in family.texts_of_call(_call(family, pipe, plan))
    )
    encoders = [getattr(pipe, name) for name in text_encoders_of(family, pipe)]
    for encoder in encoders:
        encoder.to(device)
    with torch.no_grad():
        found = {text: family.encode_prompts(pipe, [text]) for text in texts}
    for encoder in encoders:
        encoder.to("cpu")
    return {
        text: {name: tensor.cpu() for name, tensor in conditioning.items()}
        for text, conditioning in found.items()
    }


def release_text_encoders(family: Family, pipe: Pipeline) -> None:
    """Take the text encoders out of the pipeline; they may be larger than all the rest."""
    pipe.register_modules(**dict.fromkeys(text_encoders_of(family, pipe)))


def embedded_inputs(
    family: Family,
    pipe: Pipeline,
    plan: Sampling,
    embedded: Mapping[str, Conditioning],
) -> dict[str, Any] | None:
    """Return the arguments of the pipeline's call with embeddings in place of texts; None if a text
    is not embedded."""
    call = _call(family, pipe, plan)
    if not set(family.texts_of_call(call)) <= set(embedded):
        return None
    return family.with_embeddings(pipe, call, embedded)


def _call(family: Family, pipe: Pipeline, plan: Sampling) -> dict[str, Any]:
    return family.call_arguments(pipe, plan.prompt, plan.negative_prompt, plan.guidance_scale)
