"""Fit a training into memory before a large download: configs ─ computed ─▶ settings."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.progress import Callback, Note
from hublora.refs import BaseRef
from hublora.resolution.base import ResolvedBase, resolve_base
from hublora.resolution.base_layers import empty_components, read_base_layers

if TYPE_CHECKING:
    from hublora.families import Family
    from hublora.memory.estimate import DenoiserCost, MemoryPlan
    from hublora.training.config.training_config import TrainingConfig

_GIB = 2**30
_USUAL_SIDE = 1024  # pixels: what transformers were trained on
# Optimizer -> bytes of its state for a trained weight.
_STATE = {"adamw-8bit": 2, "adafactor": 1, "muon": 4, "prodigy": 16}
_TRAINED = 8  # bytes of a trained weight and its gradient


def plan_fit(config: TrainingConfig, limit: int, callback: Callback) -> TrainingConfig | None:
    """Return the settings with quantisation, block swap, checkpointing and batch for a limit, from
    the base's configs alone; None for a family whose memory is measured instead.

    Args:
        config: Settings of the training; what they quantise, swap or checkpoint stays.
        limit: Memory of the device in bytes.
        callback: Called with what was chosen.

    Raises:
        ConfigError: Nothing fits.
    """
    from hublora.families.registry import FAMILIES

    named = config.base
    base = resolve_base(BaseRef.parse(named.model, named.revision, named.components))
    family = FAMILIES.get(read_base_layers(base, ()).family or "")
    if family is None or not hasattr(family, "conditioning_shapes"):
        return None
    cost, text = _costs(config, base, family)
    chosen = _choose(config, family, cost, text, limit)
    if chosen is None:
        raise _too_large(config, family, cost, text, limit)
    needed = cost.step_bytes(chosen, bytes_per_trained(config))
    callback(Note(describe(chosen, needed, limit, len(cost.blocks))))
    return _with(config, chosen, len(cost.blocks))


def describe(plan: MemoryPlan, needed: int, limit: int, blocks: int) -> str:
    """Return the sentence about a plan, which says that its memory is computed."""
    ways = [
        *([f"the base in {plan.quantize}"] if plan.quantize else []),
        *([f"{plan.swapped} of {blocks} blocks swapped"] if plan.swapped else []),
        *(["gradient checkpointing"] if plan.checkpointing else []),
    ]
    how = f" with {', '.join(ways)}" if ways else ""
    return (
        f"Fits: batches of {plan.batch_size}{how} take {needed / _GIB:.1f} of "
        f"{limit / _GIB:.1f} GiB (computed, not measured)."
    )


def bytes_per_trained(config: TrainingConfig) -> int:
    """Return the bytes of a trained weight with its gradient, its average and optimizer state."""
    average = 4 if config.adapter.ema_decay is not None else 0
    return _TRAINED + average + _STATE.get(config.optimizer.name, 8)


def _costs(config: TrainingConfig, base: ResolvedBase, family: Family) -> tuple[DenoiserCost, Any]:
    """Return the cost of the denoiser, and kind -> bytes of the text encoders."""
    from hublora.memory.estimate import bare_pipeline, denoiser_cost, model_bytes
    from hublora.memory.frozen_linear import linear_layers
    from hublora.training.accelerator import planned_dtype
    from hublora.training.target_layers import find_ranks

    dtype = planned_dtype(config)
    models = empty_components(base, (family.denoiser, *family.text_encoders))
    denoiser = models.pop(family.denoiser).to(dtype)
    names = [name for name, _ in linear_layers(denoiser)]
    ranks = find_ranks(config.adapter, family.denoiser, names, family)
    side = _side(config)
    cost = denoiser_cost(family, bare_pipeline(family, denoiser), ranks, (side, side))

    def text_bytes(kind: Any) -> int:
        return sum(model_bytes(one, kind, dtype.itemsize) for one in models.values())

    return cost, text_bytes


def _side(config: TrainingConfig) -> int:
    """Return the side of the largest images in pixels."""
    given = config.data.resolution or _USUAL_SIDE
    return given if isinstance(given, int) else max(given)


def _choose(
    config: TrainingConfig, family: Family, cost: DenoiserCost, text: Any, limit: int
) -> MemoryPlan | None:
    from hublora.memory.fit import choose_plan
    from hublora.memory.offload import parse_blocks

    reads_weights = config.adapter.init != "gaussian" or config.adapter.method == "dora"
    kind, offload = config.base.quantize, config.base.offload
    swapped = None if offload is None else [parse_blocks(offload) or len(cost.blocks)]
    again = [True] if config.gradient_checkpointing else [False, True]
    images = config.train_batch_size * config.gradient_accumulation_steps
    most = images
    if config.data.aspect_buckets:
        most = gcd(images, config.data.bucket_batch or config.train_batch_size)
    return choose_plan(
        cost,
        text,
        limit,
        kinds=[kind] if kind or reads_weights else [None, "int8"],
        checkpointing=again[: 1 + family.gradient_checkpointing],
        swapped=[0] if reads_weights else swapped,
        batch_sizes=[size for size in range(1, most + 1) if most % size == 0],
        bytes_per_trained=bytes_per_trained(config),
    )


def _too_large(
    config: TrainingConfig, family: Family, cost: DenoiserCost, text: Any, limit: int
) -> ConfigError:
    from hublora.memory.estimate import MemoryPlan
    from hublora.training.failures import smaller

    kind = config.base.quantize or "int8"
    least = MemoryPlan(kind, len(cost.blocks), family.gradient_checkpointing, 1)
    needed = max(cost.step_bytes(least, bytes_per_trained(config)), text(kind) + _GIB)
    return ConfigError(
        f"One image at a time with the base in {kind} and all blocks swapped needs "
        f"{needed / _GIB:.1f} GiB (computed), and {limit / _GIB:.1f} GiB are available.",
        f"To need less, {smaller(config, _side(config))}.",
    )


def _with(config: TrainingConfig, plan: MemoryPlan, blocks: int) -> TrainingConfig:
    images = config.train_batch_size * config.gradient_accumulation_steps
    offload = "blocks" if plan.swapped == blocks else f"blocks:{plan.swapped}"
    chosen: dict[str, Any] = {
        "base.quantize": plan.quantize,
        "base.offload": offload if plan.swapped else None,
        "gradient_checkpointing": plan.checkpointing,
        "train_batch_size": plan.batch_size,
        "gradient_accumulation_steps": images // plan.batch_size,
    }
    if config.data.aspect_buckets:  # the order of the images stays that of the larger batch
        chosen["data.bucket_batch"] = config.data.bucket_batch or config.train_batch_size
    return config.updated(chosen)
