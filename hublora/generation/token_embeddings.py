"""Adds an adapter's token embeddings to a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hublora.adapters.embeddings import LearnedToken
from hublora.errors import AdapterError
from hublora.module_lock import MODULE_LOCK


def add_tokens(pipe: Any, tokens: Iterable[LearnedToken], label: str) -> dict[str, tuple[str, ...]]:
    """Add token embeddings to the pipeline's text encoders, under unused names.

    Args:
        pipe: A diffusers pipeline.
        tokens: Learned tokens of one adapter.
        label: Name of the adapter in messages.

    Returns:
        Each token's own name -> its tokens in the pipeline, one for each vector.

    Raises:
        AdapterError: The pipeline's text encoders have another width; nothing was changed.
    """
    tokens = list(tokens)
    if not tokens:
        return {}
    encoders = _text_encoders(pipe)
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
            with MODULE_LOCK, _quiet_transformers():
                pipe.load_textual_inversion(
                    [{name: row} for name, row in learned.items()],
                    token=list(learned),
                    tokenizer=tokenizer,
                    text_encoder=encoder,
                )
    return names


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' note on how it initializes rows that are overwritten at once."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _text_encoders(pipe: Any) -> list[tuple[Any, Any]]:
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
