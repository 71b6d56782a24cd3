"""Draws the pictures of a composition's card, or of a merged adapter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.cards.facts import Picture
from hublora.cards.facts import Sampling as CardSampling
from hublora.workflows.drawing import draw, save
from hublora.workflows.parts import OpenPart
from hublora.workflows.progress import Observer

if TYPE_CHECKING:
    from hublora.generation.sample import Sampling

_GALLERY = 4  # pictures


@dataclass(frozen=True)
class Gallery:
    """What a card says of its pictures.

    Attributes:
        pictures: In order; empty where none were drawn.
        sampling: How they were drawn.
    """

    pictures: tuple[Picture, ...] = ()
    sampling: CardSampling = field(default_factory=CardSampling)


def draw_gallery(pipe: Any, plans: Sequence[Sampling], folder: Path, observer: Observer) -> Gallery:
    """Draw the plans, which differ in prompt and seed, into the folder of a repo."""
    shown, sampling = [], CardSampling()
    for index, image in enumerate(draw(pipe, plans, "auto", observer)):
        name, plan = f"images/{index}.png", plans[index]
        save(image, folder / name, pipe.hublora, plan, "auto")
        added = pipe.hublora.expand(plan.prompt).added
        shown.append(Picture(name, plan.prompt, plan.negative_prompt, plan.seed, added))
        sampling = CardSampling(
            plan.num_inference_steps,
            plan.guidance_scale,
            plan.scheduler or pipe.hublora.scheduler,
            *image.size,
        )
    return Gallery(tuple(shown), sampling)


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
