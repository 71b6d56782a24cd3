"""Captions that are lists of tags, written in other orders and with some tags left out."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from hublora.data.config import DataConfig

_SEPARATOR = ","


@dataclass(frozen=True)
class Tags:
    """What is done to the tags of a caption, which are what lies between its commas.

    Attributes:
        seed: Of what is drawn.
        shuffle: Whether they change their order.
        keep: How many of the first ones stay where they are.
        dropout: Probability with which each of the others is left out.
        variants: In how many ways a caption is written; None: in ever new ones.
    """

    seed: int = 0
    shuffle: bool = False
    keep: int = 0
    dropout: float = 0.0
    variants: int | None = 1

    @classmethod
    def of(cls, config: DataConfig, cached: bool) -> Tags:
        """Return what a config asks for; variants are few if their prompts are cached."""
        variants = config.caption_variants if cached else None
        return cls(config.seed, config.shuffle_tags, config.keep_tags, config.tag_dropout, variants)

    def write(self, caption: str, variant: int) -> str:
        """Return a caption in one of its ways, which depends on seed, caption and variant alone."""
        if not (self.shuffle or self.dropout) or _SEPARATOR not in caption:
            return caption
        if self.variants is not None:
            variant %= self.variants
        tags = [tag for part in caption.split(_SEPARATOR) if (tag := part.strip())]
        rest = tags[self.keep :]
        draw = random.Random(f"{self.seed}/{variant}/{caption}")
        if self.dropout:
            rest = [tag for tag in rest if draw.random() >= self.dropout]
        if self.shuffle:
            rest.sort(key=lambda _: draw.random())
        return ", ".join([*tags[: self.keep], *rest])

    def texts(self, captions: Iterable[str]) -> list[str]:
        """Return "", and every caption as it is and in all of its ways, each once."""
        assert self.variants is not None, "the ways are endless"
        captions = list(captions)
        ways = (
            self.write(caption, variant) for caption in captions for variant in range(self.variants)
        )
        return list(dict.fromkeys(["", *captions, *ways]))
