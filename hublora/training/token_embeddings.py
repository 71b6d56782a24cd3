"""New words while they are learned: rows beside the frozen embeddings of the text encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from hublora.adapters.embeddings import LearnedToken
from hublora.errors import ConfigError
from hublora.families import Family
from hublora.training.config.sections import TokenSettings


class LearnedRows(torch.nn.Module):
    """An embedding that looks its last ids up in rows of its own, which are trained.

    Args:
        known: The base's embedding; it stays as it is.
        first: Id of the first row.
        rows: [n, width], what they are at first.
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
    """The new words of a training.

    Attributes:
        lengths: Word -> vectors that it stands for.
        rows: Text encoder -> its rows, those of one word after the other's.
        initial: Text encoder -> the rows at first.
    """

    lengths: Mapping[str, int]
    rows: dict[str, LearnedRows]
    initial: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by the text encoder's name."""
        return {component: one.rows for component, one in self.rows.items()}

    def read(self) -> list[LearnedToken]:
        """Return a copy of the words as they are now, in float32 on the CPU."""
        rows = [one.rows.detach().float().cpu().clone() for one in self.rows.values()]
        parts = [one.split(list(self.lengths.values())) for one in rows]
        return [
            LearnedToken(word, {number: part[index] for number, part in enumerate(parts)})
            for index, word in enumerate(self.lengths)
        ]

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that a resumed training needs of them, by name."""
        return {component: one.rows.detach() for component, one in self.rows.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up where `state` was."""
        with torch.no_grad():
            for component, one in self.rows.items():
                one.rows.copy_(state[component])

    @contextmanager
    def without(self) -> Iterator[None]:
        """Let the words mean what they did at first."""
        kept = {component: tensor.clone() for component, tensor in self.state().items()}
        self.load_state(self.initial)
        try:
            yield
        finally:
            self.load_state(kept)


def check_tokens(settings: TokenSettings, family: Family, pipe: Any) -> None:
    """Check that the words are new to the base, and that they can begin as what it knows.

    Raises:
        ConfigError: One is not.
    """
    for tokenizer in _tokenizers(pipe, family).values():
        for word in settings.placeholders:
            if word in tokenizer.get_vocab() or len(_ids(tokenizer, word)) == 1:
                raise ConfigError(
                    f"The base knows {word!r} already, so it cannot become a new word.",
                    "Choose one in angle brackets: --placeholder-token '<my-thing>'",
                )
        for word in settings.initializers:
            count = len(_ids(tokenizer, word))
            if not count:
                raise ConfigError(
                    f"The base has no token for {word!r}, so nothing can begin as it.",
                    "Name another word: --initializer-token dog",
                )
            if count > settings.num_vectors:
                raise ConfigError(
                    f"{word!r} is {count} tokens to the base, and a new word begins as "
                    f"{settings.num_vectors} of them.",
                    f"Name a plainer word, or learn as many: --num-vectors {count}",
                )


def add_tokens(settings: TokenSettings, family: Family, pipe: Any, seed: int) -> Tokens:
    """Teach the pipeline the new words, under the names that `load_textual_inversion` gives.

    Args:
        settings: Placeholder tokens and their initial words.
        family: Family of the base model.
        pipe: Pipeline of the base; its tokenizers get the placeholder tokens.
        seed: Seed of randomly initialised token embeddings.
    """
    lengths = dict.fromkeys(settings.placeholders, settings.num_vectors)
    names = [
        f"{word}_{number}" if number else word
        for word, length in lengths.items()
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
                _beginning(tokenizer, known.weight, word, settings.num_vectors, generator)
                for word in _initializers(settings)
            ]
        )
        if tokenizer.add_tokens(names) != len(names):
            raise ConfigError("The base knows some of the new words already.", "Rename them.")
        learned = LearnedRows(known, first, rows)
        encoder.set_input_embeddings(learned)
        tokens.rows[component] = learned
        tokens.initial[component] = learned.rows.detach().clone()
    return tokens


def _initializers(settings: TokenSettings) -> Sequence[str | None]:
    """Return what each placeholder begins as."""
    given, count = settings.initializers, len(settings.placeholders)
    return (given * count)[:count] if len(given) == 1 else given or [None] * count


def _beginning(
    tokenizer: Any,
    weight: torch.Tensor,
    word: str | None,
    count: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the first vectors of a word, [count, width]: those of its initialiser's tokens in
    turn, else random ones as long as those of the base."""
    if word is None:
        spread = weight.detach().float().std()
        return torch.randn(count, weight.shape[1], generator=generator) * spread.cpu()
    ids = _ids(tokenizer, word)
    return weight.detach()[[ids[number % len(ids)] for number in range(count)]].cpu().float()


def _ids(tokenizer: Any, word: str) -> list[int]:
    """Return the tokens of a word, without markers and those that stand for nothing known."""
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return [number for number in ids if number not in tokenizer.all_special_ids]


def _tokenizers(pipe: Any, family: Family) -> dict[str, Any]:
    """Return text encoder -> its tokenizer, as diffusers' pipelines name them."""
    return {
        name: getattr(pipe, name.replace("text_encoder", "tokenizer"))
        for name in family.text_encoders
    }
