"""Writes the model card of an adapter."""

from __future__ import annotations

from pathlib import Path

from hublora.cards import metadata
from hublora.cards.facts import CardFacts
from hublora.cards.merge import merge_card
from hublora.cards.template_context import view
from hublora.filesystem import write_atomically
from hublora.rendering import render

TEMPLATE = "cards/adapter.md.jinja"


def write_card(folder: Path, facts: CardFacts, previous: str | None = None) -> Path:
    """Write `README.md` into `folder` and return its path.

    Args:
        folder: Folder of the adapter's repo.
        facts: Facts on the card.
        previous: Text of the present card, whose user sections are kept; None without a card.
    """
    card = render_card(facts)
    path = folder / "README.md"
    write_atomically(path, card if previous is None else merge_card(previous, card))
    return path


def render_card(facts: CardFacts) -> str:
    """Return a new card without anything that a person wrote."""
    body = render(TEMPLATE, **view(facts))
    return metadata.join(metadata.dump(metadata.front_matter(facts)), body)
