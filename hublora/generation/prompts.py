"""Weighted and long prompts, encoded by compel (https://github.com/damian0815/compel).

`(word:1.2)` makes a word count more and `(word:0.5)` less; a prompt longer than the text encoder
reads is encoded in pieces. Every other prompt is left to the pipeline itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from hublora.errors import ConfigError

_WEIGHTED = re.compile(r"(?<!\\)\(([^()]+):\s*(\d+(?:\.\d+)?|\.\d+)\s*\)")
_ENDINGS = ("", "_2", "_3")  # of the names of text encoders and tokenizers
_INSTALL = "Install compel: pip install 'hublora[prompts]'"


def fragments(prompt: str) -> list[tuple[str, float]]:
    """Return the prompt's parts and their weights, 1.0 where none is written."""
    parts: list[tuple[str, float]] = []
    end = 0
    for found in _WEIGHTED.finditer(prompt):
        parts += [(prompt[end : found.start()], 1.0), (found[1], float(found[2]))]
        end = found.end()
    parts.append((prompt[end:], 1.0))
    return [(text.strip(), weight) for text, weight in parts if text.strip()] or [("", 1.0)]


def has_weights(prompt: str) -> bool:
    """Tell whether a part of the prompt is weighted."""
    return bool(_WEIGHTED.search(prompt))


def reads_clip(pipe: Any) -> bool:
    """Tell whether all text encoders of a pipeline are CLIP's, which compel knows."""
    encoders = _text_encoders(pipe)
    return bool(encoders) and all("CLIPText" in type(one).__name__ for one in encoders)


def can_encode(pipe: Any) -> bool:
    """Tell whether compel is installed, and knows the pipeline's text encoders."""
    from importlib.util import find_spec

    try:
        return find_spec("compel") is not None and reads_clip(pipe)
    except ValueError:  # a module of that name without a spec
        return False


def encode(pipe: Any, prompt: str, negative_prompt: str) -> Mapping[str, torch.Tensor]:
    """Return the arguments that stand for both prompts in a call of the pipeline.

    Args:
        pipe: A pipeline of one or two CLIP text encoders.
        prompt: Expanded prompt, with or without weights.
        negative_prompt: Expanded negative prompt; may be empty.

    Returns:
        prompt_embeds and negative_prompt_embeds, [1, k · tokens, width], and their pooled kin
        [1, width] where the pipeline has two text encoders.

    Raises:
        ConfigError: compel is not installed, or cannot encode for this pipeline.
    """
    if not reads_clip(pipe):
        raise ConfigError(
            f"Weighted and long prompts do not work with a {type(pipe).__name__}.",
            "Write the prompt without (word:1.2).",
        )
    if not can_encode(pipe):
        raise ConfigError("Prompts with weights need the library compel.", _INSTALL)
    provider = _provider(pipe)
    device = pipe._execution_device
    with torch.no_grad():
        both = [_embed(provider, text, device) for text in (prompt, negative_prompt)]
        length = max(one.shape[1] for one in both)
        empty = _embed(provider, "", device)
        names = ("prompt_embeds", "negative_prompt_embeds")
        inputs = {name: _padded(one, empty, length) for name, one in zip(names, both, strict=True)}
        for name, text in zip(names, (prompt, negative_prompt), strict=True):
            plain = " ".join(part for part, _ in fragments(text))
            pooled = provider.get_pooled_embeddings([plain], device=device)
            if pooled is not None:
                inputs[name.replace("prompt_", "pooled_prompt_")] = pooled.to(both[0].dtype)
    return inputs


def _provider(pipe: Any) -> Any:
    from compel.embeddings_provider import EmbeddingsProviderMulti, ReturnedEmbeddingsType

    encoders = _text_encoders(pipe)
    two = len(encoders) > 1  # as in Stable Diffusion XL: one layer earlier, and pooled
    kind = ReturnedEmbeddingsType
    return EmbeddingsProviderMulti(
        [
            getattr(pipe, f"tokenizer{ending}")
            for ending in _ENDINGS
            if getattr(pipe, f"text_encoder{ending}", None) is not None
        ],
        encoders,
        truncate=False,
        returned_embeddings_type=(
            kind.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
            if two
            else kind.LAST_HIDDEN_STATES_NORMALIZED
        ),
        requires_pooled_mask=[False, True] if two else [],
    )


def _text_encoders(pipe: Any) -> list[Any]:
    found = (getattr(pipe, f"text_encoder{ending}", None) for ending in _ENDINGS)
    return [encoder for encoder in found if encoder is not None]


def _embed(provider: Any, prompt: str, device: torch.device) -> torch.Tensor:
    texts, weights = zip(*fragments(prompt), strict=True)
    return provider.get_embeddings_for_weighted_prompt_fragments(
        [list(texts)], [list(weights)], device=device
    )


def _padded(embeds: torch.Tensor, empty: torch.Tensor, length: int) -> torch.Tensor:
    missing = (length - embeds.shape[1]) // empty.shape[1]
    return torch.cat([embeds, *[empty] * missing], dim=1)
