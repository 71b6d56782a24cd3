"""A pipeline's call by texts, and the same with embeddings in place of the texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hublora.families.base import Conditioning
from hublora.families.pipeline import Pipeline

_TEXTS = ("prompt", "negative_prompt")


class TextCall:
    """The arguments of a pipeline's call that state prompts and guidance; part of a family.

    Attributes:
        embedding_arguments: Name of a conditioning -> argument of the pipeline's call that it is.
    """

    embedding_arguments: ClassVar[Mapping[str, str]] = {"encoder_hidden_states": "prompt_embeds"}

    def call_arguments(
        self, pipe: Pipeline, prompt: str, negative_prompt: str, guidance_scale: float
    ) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "negative_prompt": negative_prompt or None,
            "guidance_scale": guidance_scale,
        }

    def texts_of_call(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the prompt, and the negative prompt if the call has one; None there is empty."""
        negative = [arguments["negative_prompt"] or ""] if "negative_prompt" in arguments else []
        return (arguments["prompt"], *negative)

    def with_embeddings(
        self, pipe: Pipeline, arguments: Mapping[str, Any], embedded: Mapping[str, Conditioning]
    ) -> dict[str, Any]:
        call = {name: value for name, value in arguments.items() if name not in _TEXTS}
        for prefix, text in zip(("", "negative_"), self.texts_of_call(arguments), strict=False):
            for name, argument in self.embedding_arguments.items():
                call[prefix + argument] = embedded[text][name].to(pipe._execution_device)
        return call
