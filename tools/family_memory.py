"""Computes the memory that docs/families.md states, into docs/family_memory.json.

python -m tools.family_memory
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from hublora.families import FAMILIES
from hublora.memory.estimate import DenoiserCost, bare_pipeline, denoiser_cost
from hublora.memory.fit import choose_plan
from hublora.memory.frozen_linear import linear_layers
from hublora.memory.quantization import BITS
from hublora.training.config.sections import AdapterSettings
from hublora.training.target_layers import find_ranks
from tools.published_shapes import PUBLISHED, Published

FILE = Path(__file__).parents[1] / "docs" / "family_memory.json"
LIMITS = (8, 12, 16, 24)  # GiB
RANK, SIDE = 16, 1024
_GIB = 2**30
_ADAMW = 16  # bytes of a trained weight, its gradient and two moments


def cost_of(one: Published) -> DenoiserCost:
    """Return what a published transformer takes in bfloat16, at rank 16 and 1024 pixels."""
    import diffusers

    family = FAMILIES[one.family]
    with torch.device("meta"):
        model = getattr(diffusers, one.transformer)(**one.config).to(torch.bfloat16)
    names = [name for name, _ in linear_layers(model)]
    ranks = find_ranks(AdapterSettings(rank=RANK), family.denoiser, names, family)
    return denoiser_cost(family, bare_pipeline(family, model), ranks, (SIDE, SIDE))


def row(one: Published, cost: DenoiserCost) -> dict[str, Any]:
    """Return the plan at each limit, as text; None where nothing fits."""
    inside, outside = (number * 10**6 for number in one.text)

    def text_bytes(kind: Any) -> int:
        return int(outside * 2 + inside * (2 if kind is None else BITS[kind] / 8))  # type: ignore[index]

    plans: dict[str, Any] = {}
    for limit in LIMITS:
        plan = choose_plan(
            cost,
            text_bytes,
            limit * _GIB,
            kinds=[None, "int8"],
            checkpointing=[False, True][: 1 + FAMILIES[one.family].gradient_checkpointing],
            swapped=None,
            batch_sizes=[1],
            bytes_per_trained=_ADAMW,
        )
        if plan is None:
            plans[str(limit)] = None
            continue
        used = cost.step_bytes(plan, _ADAMW) / _GIB
        ways = [plan.quantize or "bf16"]
        ways += [f"{plan.swapped}/{len(cost.blocks)} swapped"] if plan.swapped else []
        ways += ["gc"] if plan.checkpointing else []
        plans[str(limit)] = f"{used:.1f}: {', '.join(ways)}"
    return plans


def main() -> None:
    rows = {label: row(one, cost_of(one)) for label, one in PUBLISHED.items()}
    FILE.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
