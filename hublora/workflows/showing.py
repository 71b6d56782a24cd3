"""Draws the pictures of a composition's card, or of a merged adapter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.cards.facts import Picture
from hublora.workflows.drawing import draw, save
from hublora.workflows.parts import OpenPart
from hublora.workflows.progress import Observer

if TYPE_CHECKING:
    from hublora.generation.sample import Sampling

_GALLERY = 4  # pictures


def draw_gallery(
    pipe: Any, plans: Sequence[Sampling], folder: Path, observer: Observer
) -> tuple[Picture, ...]:
    """Draw the plans into the folder of a repo; return what its card says of them."""
    shown = []
    for index, image in enumerate(draw(pipe, plans, "auto", observer)):
        name, plan = f"images/{index}.png", plans[index]
        save(image, folder / name, pipe.hublora, plan, "auto")
        shown.append(Picture(name, plan.prompt, plan.negative_prompt, plan.seed))
    return tuple(shown)


def usual_prompts(parts: Sequence[OpenPart]) -> list[str]:
    """Return the prompts that the adapters' own galleries show, the first of each first."""
    shown = [_widget_prompts(part.card) for part in parts]
    longest = max(map(len, shown), default=0)
    mixed = [texts[i] for i in range(longest) for texts in shown if i < len(texts)]
    return list(dict.fromkeys(mixed))[:_GALLERY] or ["a landscape"]


def _widget_prompts(card: Mapping[str, Any]) -> list[str]:
    widget = card.get("widget")
    entries = widget if isinstance(widget, list) else []
    texts = [entry.get("text") for entry in entries if isinstance(entry, dict)]
    return [text for text in texts if isinstance(text, str) and text.strip()]
