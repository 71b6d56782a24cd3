"""A pipeline's call with embeddings in place of its texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hublora.families.base import Conditioning
from hublora.families.pipeline import Pipeline


def texts_of_call(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the prompt, and the negative prompt if the call has one; None there is empty."""
    negative = [arguments["negative_prompt"] or ""] if "negative_prompt" in arguments else []
    return (arguments["prompt"], *negative)


def with_embeddings(
    pipe: Pipeline,
    arguments: Mapping[str, Any],
    embedded: Mapping[str, Conditioning],
    names: Mapping[str, str],
) -> dict[str, Any]:
    """Return the arguments of a call with embeddings in place of its texts.

    Args:
        pipe: The pipeline.
        arguments: Arguments of its call, with texts.
        embedded: Text -> its conditioning, each [1, …], for all of `texts_of_call`.
        names: Name of a conditioning -> argument that it is.
    """
    call = {name: value for name, value in arguments.items() if name not in _TEXTS}
    prefixes = ("", "negative_")
    for prefix, text in zip(prefixes, texts_of_call(arguments), strict=False):
        for name, argument in names.items():
            call[prefix + argument] = embedded[text][name].to(pipe._execution_device)
    return call


_TEXTS = ("prompt", "negative_prompt")
