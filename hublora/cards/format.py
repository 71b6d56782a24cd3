"""Formats numbers, settings and sampling facts for cards and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hublora.cards import markdown
from hublora.cards.facts import GalleryImage, SamplingFacts

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_LABELS = {
    "os": "Operating system",
    "python": "Python",
    "device": "Device",
    "device_count": "Devices",
    "device_memory": "Memory of each",
    "cpu_threads": "CPU threads",
    "cpu_cores": "CPU cores",
}


def format_size(count: int) -> str:
    """Return a number of bytes, e.g. "3.3 MB"."""
    number, unit = float(count), 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    digits = 1 if unit and number < 10 else 0
    return f"{number:.{digits}f} {_UNITS[unit]}"


def format_value(given: object) -> str | None:
    """Return a setting's value as text; None for one that is not set."""
    if given is None or given == "" or (isinstance(given, list | tuple) and not given):
        return None
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, int):
        return str(given)
    if isinstance(given, float):
        return f"{given:g}"
    if isinstance(given, Mapping):
        return ", ".join(f"{key}: {format_value(value) or '–'}" for key, value in given.items())
    if isinstance(given, list | tuple):
        return ", ".join(format_value(item) or "–" for item in given)
    return str(given)


def format_count(number: int, noun: str) -> str:
    """Return a count with its noun, e.g. "1 image" or "1,200 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_sampling(facts: SamplingFacts) -> str | None:
    """Return the sampling settings, e.g. "25 steps, guidance 7.5"; None if none is known."""
    steps = format_count(facts.steps, "step") if facts.steps else None
    if steps and facts.scheduler:
        steps += f" of {markdown.code(facts.scheduler)}"
    parts = [
        steps,
        f"guidance {facts.guidance:g}" if facts.guidance is not None else None,
        f"{facts.width} × {facts.height} pixels" if facts.width and facts.height else None,
    ]
    return ", ".join(part for part in parts if part) or None


def format_image_source(image: GalleryImage) -> str:
    """Return prompt, negative prompt, trigger words and seed of an image in Markdown."""
    line = markdown.code(image.prompt)
    if image.negative_prompt:
        line += f" without {markdown.code(image.negative_prompt)}"
    if image.in_front:
        line += f" with {', '.join(map(markdown.code, image.in_front))} in front"
    return line if image.seed is None else f"{line}, seed {image.seed}"


def format_environment(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return label and value of each fact that `describe_environment` returned."""
    rows = []
    for name, given in facts.items():
        text = format_size(given) if name.endswith("_memory") else format_value(given)
        if text is not None:
            rows.append((_LABELS.get(name, name), text))
    return rows
