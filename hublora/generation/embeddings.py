"""Learned tokens (textual inversion, https://huggingface.co/papers/2208.01618) on a pipeline.

file                          tensors
diffusers, pivotal tuning     clip_l [n, d] and clip_g [n, d']: the tokens <s0> … <s{n-1}>
diffusers, textual inversion  the token itself -> [d] or [n, d]
AUTOMATIC1111                 emb_params [n, d], the token is the file's name
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hublora.errors import AdapterError

# Key in a file -> number of the text encoder, from 0.
_ENCODERS = {"clip_l": 0, "clip_g": 1, "text_encoders_0": 0, "text_encoders_1": 1}
_AUTOMATIC = "emb_params"


@dataclass(frozen=True)
class LearnedToken:
    """A token that an adapter brings along.

    Attributes:
        name: As its author writes it, e.g. "<s0>".
        vectors: Number of the text encoder, from 0 -> [n, width]: one row for each vector.
    """

    name: str
    vectors: Mapping[int, torch.Tensor]

    @property
    def length(self) -> int:
        """Vectors that it stands for."""
        return max(len(rows) for rows in self.vectors.values())


def read_tokens(path: Path) -> list[LearnedToken]:
    """Return the learned tokens in a safetensors file.

    Raises:
        AdapterError: It is broken, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterError(f"The embeddings {path.name} cannot be read: {error}.") from error
    for key, tensor in tensors.items():
        if tensor.ndim not in (1, 2) or not tensor.numel() or not torch.isfinite(tensor).all():
            raise AdapterError(f"The embeddings {path.name} hold no usable vectors for {key!r}.")
    rows = {key: tensor.reshape(-1, tensor.shape[-1]) for key, tensor in tensors.items()}
    if set(rows) <= set(_ENCODERS):
        return _pivotal(rows)
    if set(rows) == {_AUTOMATIC}:
        return [LearnedToken(path.stem, {0: rows[_AUTOMATIC]})]
    return [LearnedToken(key, {0: tensor}) for key, tensor in rows.items()]


def add_tokens(pipe: Any, tokens: Iterable[LearnedToken], label: str) -> dict[str, tuple[str, ...]]:
    """Teach the pipeline the tokens under names that nothing else has.

    Args:
        pipe: A diffusers pipeline.
        tokens: Of one adapter.
        label: The adapter, in messages.

    Returns:
        Each token's own name -> its tokens in the pipeline, one for each vector.

    Raises:
        AdapterError: The pipeline's text encoders have another width; nothing was changed.
    """
    tokens = list(tokens)
    if not tokens:
        return {}
    encoders = _text_parts(pipe)
    _check_widths(encoders, tokens, label)
    prefix = _free_prefix(encoders[0][0])
    names = {
        token.name: tuple(f"<{prefix}{token.name.strip('<>')}-{i}>" for i in range(token.length))
        for token in tokens
    }
    for number, (tokenizer, encoder) in enumerate(encoders):
        learned = {
            name: row[None]
            for token in tokens
            if number in token.vectors
            for name, row in zip(names[token.name], token.vectors[number], strict=False)
        }
        if learned:
            pipe.load_textual_inversion(
                [{name: row} for name, row in learned.items()],
                token=list(learned),
                tokenizer=tokenizer,
                text_encoder=encoder,
            )
    return names


def _pivotal(rows: Mapping[str, torch.Tensor]) -> list[LearnedToken]:
    count = max(len(tensor) for tensor in rows.values())
    return [
        LearnedToken(
            f"<s{index}>",
            {
                _ENCODERS[key]: tensor[index : index + 1]
                for key, tensor in rows.items()
                if index < len(tensor)
            },
        )
        for index in range(count)
    ]


def _text_parts(pipe: Any) -> list[tuple[Any, Any]]:
    """Return tokenizer and text encoder of each pair that the pipeline has, in order."""
    parts = []
    for ending in ("", "_2"):
        tokenizer = getattr(pipe, f"tokenizer{ending}", None)
        encoder = getattr(pipe, f"text_encoder{ending}", None)
        if tokenizer is not None and encoder is not None:
            parts.append((tokenizer, encoder))
    return parts


def _check_widths(
    encoders: list[tuple[Any, Any]], tokens: Iterable[LearnedToken], label: str
) -> None:
    widths = [encoder.get_input_embeddings().weight.shape[-1] for _, encoder in encoders]
    for token in tokens:
        for number, rows in token.vectors.items():
            own = widths[number] if number < len(widths) else None
            if rows.shape[-1] != own:
                raise AdapterError(
                    f"The learned token {token.name} of {label} is {rows.shape[-1]} wide and the "
                    f"base's text encoder {own or 'is missing'}.",
                    "Name the base it was made for with --base.",
                )


def _free_prefix(tokenizer: Any) -> str:
    """Return a beginning, like "a2-", that no added token of the tokenizer has yet."""
    number, taken = 1, list(tokenizer.get_added_vocab())
    while any(token.startswith(f"<a{number}-") for token in taken):
        number += 1
    return f"a{number}-"
