"""Tag shuffling and tag dropout for captions that are comma-separated lists."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from hublora.data.config import DataConfig

_SEPARATOR = ","


@dataclass(frozen=True)
class Tags:
    """Shuffling and dropout of the comma-separated tags of a caption.

    Attributes:
        seed: Seed of all variants.
        shuffle: Whether the tags are shuffled.
        keep: Number of first tags that are neither shuffled nor dropped.
        dropout: Probability in [0, 1] with which each other tag is dropped.
        variants: Number of variants of each caption; None: unlimited.
    """

    seed: int = 0
    shuffle: bool = False
    keep: int = 0
    dropout: float = 0.0
    variants: int | None = 1

    @classmethod
    def of(cls, config: DataConfig, cached: bool) -> Tags:
        """Return the settings of a config; with cached prompts the variants are limited."""
        variants = config.caption_variants if cached else None
        return cls(config.seed, config.shuffle_tags, config.keep_tags, config.tag_dropout, variants)

    def write(self, caption: str, variant: int) -> str:
        """Return a variant of a caption, which depends only on seed, caption and number."""
        if not (self.shuffle or self.dropout) or _SEPARATOR not in caption:
            return caption
        if self.variants is not None:
            variant %= self.variants
        tags = [tag for part in caption.split(_SEPARATOR) if (tag := part.strip())]
        rest = tags[self.keep :]
        rng = random.Random(f"{self.seed}/{variant}/{caption}")
        if self.dropout:
            rest = [tag for tag in rest if rng.random() >= self.dropout]
        if self.shuffle:
            rest.sort(key=lambda _: rng.random())
        return ", ".join([*tags[: self.keep], *rest])

    def texts(self, captions: Iterable[str]) -> list[str]:
        """Return the distinct texts among "", all captions and all of their variants."""
        assert self.variants is not None, "the number of variants is unlimited"
        captions = list(captions)
        variants = (
            self.write(caption, variant) for caption in captions for variant in range(self.variants)
        )
        return list(dict.fromkeys(["", *captions, *variants]))
