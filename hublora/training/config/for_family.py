"""Settings that a base model's family does not have: those of a preset are left out, others are
refused, both before anything large is downloaded or encoded."""

from __future__ import annotations

from collections.abc import Iterator

from hublora.errors import ConfigError
from hublora.families import Family
from hublora.training.config.presets import PRESETS
from hublora.training.config.training_config import TrainingConfig


def fit_to_family(config: TrainingConfig, family: Family) -> tuple[TrainingConfig, list[str]]:
    """Return the settings without those of their preset that the family does not have, and a note
    about each.

    Raises:
        ConfigError: A setting that is not the preset's is one of them.
    """
    preset = PRESETS.get(config.preset or "", {})
    notes: list[str] = []
    changes: dict[str, None] = {}
    for key, reason in _without_effect(config, family):
        section, _, name = key.partition(".")
        if preset.get(section, {}).get(name) != getattr(getattr(config, section), name):
            raise ConfigError(f"{key}: {reason}.", f"Leave {key} out.")
        notes.append(f"The preset's {key} is left out: {reason}.")
        changes[key] = None
    if config.gradient_checkpointing and not family.gradient_checkpointing:
        raise ConfigError(
            f"With gradient checkpointing, diffusers' transformer of {family.name} leaves out its "
            "attention mask, and other weights would be learned.",
            "Leave --gradient-checkpointing out.",
        )
    return (config.updated(changes) if changes else config), notes


def check_precision(mixed_precision: str, family: Family) -> None:
    """Check that the family's base models do not overflow in the precision of a training.

    Args:
        mixed_precision: "no", "fp16" or "bf16".
        family: Family of the base model.

    Raises:
        ConfigError: They do, and the loss would be NaN.
    """
    if mixed_precision == "fp16" and family.half_dtype != "float16":
        raise ConfigError(
            f"Base models of {family.name} overflow in float16: the loss would be NaN.",
            "Use --mixed-precision bf16, or no on a GPU without bfloat16.",
        )


def _without_effect(config: TrainingConfig, family: Family) -> Iterator[tuple[str, str]]:
    if family.flow_matching and config.objective.snr_gamma is not None:
        reason = "objective.snr_gamma is not defined for a flow-matching base model"
        yield "objective.snr_gamma", reason
    if config.adapter.conv_rank is not None and not family.convolutions:
        yield "adapter.conv_rank", f"a base model of {family.name} has no convolutions"
