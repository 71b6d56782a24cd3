"""Adapters that were trained for few steps, among those of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hublora.families.speed import SpeedSettings
from hublora.generation.schedulers import use_scheduler
from hublora.progress import Callback, Note
from hublora.resolution.composition_parts import LoadedAdapter


def speed_adapters(adapters: Sequence[LoadedAdapter]) -> list[LoadedAdapter]:
    """Return the adapters that were trained for few steps and whose weight is not 0."""
    return [one for one in adapters if one.adapter.facts.speed and one.weight.acts]


def speed_notes(adapters: Sequence[LoadedAdapter]) -> list[Note]:
    """Return what is told of adapters that were trained for few steps."""
    fast = speed_adapters(adapters)
    notes = []
    for one in fast[:1]:
        speed = one.adapter.facts.speed
        notes.append(Note(f"{one.label} was trained for few steps. It brings {speed}."))
    for one in fast:
        meant = one.adapter.facts.speed
        if meant is not None and meant.weight != 1 == one.weight.number:
            told = f"{one.label} was trained for the weight {meant.weight:g}, and has 1."
            notes.append(Note(f"{told} Write {one.label}:{meant.weight:g}.", warning=True))
    if len({one.adapter.facts.speed for one in fast}) > 1:
        others = ", ".join(one.label for one in fast[1:])
        told = f"{others} was trained for few steps, too, with other settings"
        notes.append(Note(f"{told}: those of {fast[0].label} are used.", warning=True))
    return notes


def use_speed(pipe: Any, before: SpeedSettings | None, callback: Callback) -> None:
    """Give the pipeline the scheduler that a speed adapter brings, and tell so.

    Args:
        pipe: The pipeline, with its adapters active.
        before: Settings that an adapter had brought which was active before; None without one.
        callback: Called with each event (`hublora.progress.Event`).
    """
    composition = pipe.hublora
    speed = composition.speed
    if speed is not None:
        use_scheduler(pipe, speed.scheduler, speed.timestep_spacing, speed.shift)
    elif before is not None:
        pipe.scheduler = composition.base_scheduler
    for note in speed_notes(composition.adapters):
        callback(note)
