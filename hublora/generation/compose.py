"""Puts adapters on a pipeline, every tensor of them accounted for.

Several adapters act as the exact weighted sum of their updates: each layer computes
`W x + Σ_k w_k · scale_k · up_k(down_k(x))`, nothing is merged into the base or approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hublora.adapters.adapter import Adapter
from hublora.generation.lora.manager import LoraManager, fit_to_base, layer_shapes
from hublora.generation.lora.schedule import AdapterSchedule
from hublora.weights import Weight

__all__ = ["Part", "apply_adapters", "fit_to_base", "layer_shapes"]


@dataclass(frozen=True)
class Part:
    """One adapter of a composition and its weight."""

    adapter: Adapter
    weight: float = 1.0

    @property
    def label(self) -> str:
        return self.adapter.facts.source or self.adapter.facts.title or "the adapter"


def apply_adapters(pipe: Any, parts: Sequence[Part], base: str) -> AdapterSchedule:
    """Add the adapters to the pipeline and make them the active ones.

    Args:
        pipe: A diffusers pipeline.
        parts: What to add; the same adapter may come twice.
        base: What the pipeline is called in messages.

    Returns:
        What gives them other weights, or lets them act in another way.

    Raises:
        AdapterError: An adapter does not fit the base; nothing was changed.
    """
    bank = LoraManager(pipe)
    prepared = [bank.prepare(part.adapter, part.label, base) for part in parts]
    adapter_schedule = AdapterSchedule(bank, getattr(pipe, "unet", None))
    adapter_schedule.play(prepared, [Weight.of(part.weight) for part in parts])
    return adapter_schedule
