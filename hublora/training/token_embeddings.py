"""Trained token embeddings: extra rows of the text encoders' frozen embedding tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from hublora.adapters.embeddings import LearnedToken
from hublora.errors import ConfigError
from hublora.families import Family
from hublora.module_lock import MODULE_LOCK
from hublora.training.config.sections import TokenSettings


class LearnedRows(torch.nn.Module):
    """An embedding table whose last ids are trained rows.

    Args:
        known: The base's embedding table, frozen.
        first: Token id of the first trained row.
        rows: [n, width], initial values of the trained rows.
    """

    def __init__(self, known: torch.nn.Embedding, first: int, rows: torch.Tensor) -> None:
        super().__init__()
        self.known, self.first = known, first
        self.rows = torch.nn.Parameter(rows.float().clone())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, [B, length, width], of `ids`, [B, length]."""
        known = self.known(ids.clamp(max=self.first - 1))
        own = self.rows[(ids - self.first).clamp(min=0)].to(known.dtype)
        return torch.where((ids >= self.first).unsqueeze(-1), own, known)


@dataclass
class Tokens:
    """The token embeddings of a training.

    Attributes:
        lengths: Placeholder token -> number of its vectors.
        rows: Text encoder -> its trained rows, token after token.
        initial: Text encoder -> initial values of its rows, [n, width].
    """

    lengths: Mapping[str, int]
    rows: dict[str, LearnedRows]
    initial: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trained rows by text encoder."""
        return {component: one.rows for component, one in self.rows.items()}

    def read(self) -> list[LearnedToken]:
        """Return a copy of the token embeddings in float32 on the CPU."""
        rows = [one.rows.detach().float().cpu().clone() for one in self.rows.values()]
        parts = [one.split(list(self.lengths.values())) for one in rows]
        return [
            LearnedToken(name, {number: part[index] for number, part in enumerate(parts)})
            for index, name in enumerate(self.lengths)
        ]

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of a checkpoint, by text encoder."""
        return {component: one.rows.detach() for component, one in self.rows.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the tensors of a checkpoint."""
        with torch.no_grad():
            for component, one in self.rows.items():
                one.rows.copy_(state[component])

    @contextmanager
    def without(self) -> Iterator[None]:
        """Use the initial values inside this context."""
        saved = {component: tensor.clone() for component, tensor in self.state().items()}
        self.load_state(self.initial)
        try:
            yield
        finally:
            self.load_state(saved)


def check_tokens(settings: TokenSettings, family: Family, pipe: Any) -> None:
    """Check that the base has no token for a placeholder, and tokens for each initializer.

    Raises:
        ConfigError: A placeholder is a token of the base, or an initializer has no token or more
            than `num_vectors`.
    """
    if set(family.text_encoders) - set(family.adaptable):
        raise ConfigError(
            f"Learned tokens require a base model whose prompts are read by CLIP alone; "
            f"{family.name} is none.",
            "Choose --method text-to-image or dreambooth.",
        )
    vectors = len(settings.placeholders) * settings.num_vectors
    longest = family.max_tokens(pipe) - family.count_tokens(pipe, [""])[0]
    if vectors > longest:
        raise ConfigError(
            f"--num-vectors {settings.num_vectors} makes prompts of {vectors} tokens, and the base "
            f"reads {longest}.",
            f"Use --num-vectors {longest // len(settings.placeholders)} or fewer.",
        )
    for tokenizer in _tokenizers(pipe, family).values():
        for placeholder in settings.placeholders:
            if placeholder in tokenizer.get_vocab() or len(_ids(tokenizer, placeholder)) == 1:
                raise ConfigError(
                    f"--placeholder-token {placeholder!r} is a token of the base already.",
                    "Choose one in angle brackets: --placeholder-token '<my-thing>'",
                )
        for word in settings.initializers:
            count = len(_ids(tokenizer, word))
            if not count:
                raise ConfigError(
                    f"--initializer-token {word!r} has no token in the base.",
                    "Name another word: --initializer-token dog",
                )
            if count > settings.num_vectors:
                raise ConfigError(
                    f"--initializer-token {word!r} is {count} tokens, and --num-vectors is "
                    f"{settings.num_vectors}.",
                    f"Name a word of fewer tokens, or use --num-vectors {count}.",
                )


def count_tokens(
    settings: TokenSettings, family: Family, pipe: Any, texts: Sequence[str]
) -> list[int]:
    """Return the number of tokens of each text once the placeholders are added: `num_vectors` each.

    Args:
        settings: Placeholders, of which there may be none.
        family: Family of the base.
        pipe: Pipeline, to which they are not added yet.
        texts: Captions.

    Returns:
        Special tokens included, untruncated.
    """
    if not settings.placeholders:
        return family.count_tokens(pipe, texts)
    longest_first = sorted(settings.placeholders, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    parts = [pattern.subn(" ", text) for text in texts]
    known = family.count_tokens(pipe, [text for text, _ in parts])
    return [
        count + found * settings.num_vectors for count, (_, found) in zip(known, parts, strict=True)
    ]


def add_tokens(settings: TokenSettings, family: Family, pipe: Any, seed: int) -> Tokens:
    """Add placeholder tokens to the pipeline, under the names that `load_textual_inversion` uses.

    Args:
        settings: Placeholder tokens and their initializers.
        family: Family of the base.
        pipe: Pipeline of the base; prompts may contain the tokens afterwards.
        seed: Seed of random initial values.
    """
    lengths = dict.fromkeys(settings.placeholders, settings.num_vectors)
    names = [
        f"{name}_{number}" if number else name
        for name, length in lengths.items()
        for number in range(length)
    ]
    tokens = Tokens(lengths, {})
    for component, tokenizer in _tokenizers(pipe, family).items():
        encoder = getattr(pipe, component)
        known = encoder.get_input_embeddings()
        generator = torch.Generator().manual_seed(seed)
        first = len(tokenizer)
        rows = torch.cat(
            [
                _initial_vectors(tokenizer, known.weight, word, settings.num_vectors, generator)
                for word in _initializers(settings)
            ]
        )
        if tokenizer.add_tokens(names) != len(names):
            raise ConfigError("A --placeholder-token is a token of the base already.", "Rename it.")
        with MODULE_LOCK:
            learned = LearnedRows(known, first, rows)
        encoder.set_input_embeddings(learned)
        tokens.rows[component] = learned
        tokens.initial[component] = learned.rows.detach().clone()
    return tokens


def _initializers(settings: TokenSettings) -> Sequence[str | None]:
    """Return the initializer word of each placeholder; None for random values."""
    given, count = settings.initializers, len(settings.placeholders)
    return (given * count)[:count] if len(given) == 1 else given or [None] * count


def _initial_vectors(
    tokenizer: Any,
    weight: torch.Tensor,
    word: str | None,
    count: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return initial vectors, [count, width]: those of the initializer's tokens in turn, else
    random ones of the base's standard deviation."""
    if word is None:
        spread = weight.detach().float().std()
        return torch.randn(count, weight.shape[1], generator=generator) * spread.cpu()
    ids = _ids(tokenizer, word)
    return weight.detach()[[ids[number % len(ids)] for number in range(count)]].cpu().float()


def _ids(tokenizer: Any, word: str) -> list[int]:
    """Return the token ids of a word, without special tokens."""
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return [number for number in ids if number not in tokenizer.all_special_ids]


def _tokenizers(pipe: Any, family: Family) -> dict[str, Any]:
    """Return text encoder -> its tokenizer, as diffusers' pipelines name them."""
    return {
        name: getattr(pipe, name.replace("text_encoder", "tokenizer"))
        for name in family.text_encoders
    }
