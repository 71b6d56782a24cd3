"""Settings that suit a kind of subject, as a whole config; what is set explicitly goes first.

docs/training.md says why each value is what it is. Steps, learning rate and method are left alone:
they depend on how many images there are and what is to become of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from hublora.data.config import DataConfig
from hublora.training.config.sections import (
    AdapterSettings,
    BaseSettings,
    ObjectiveSettings,
    TokenSettings,
)
from hublora.training.config.training_config import TrainingConfig


def face(base: str) -> TrainingConfig:
    """Return what suits the face of one person in ten to thirty images."""
    return TrainingConfig(
        base=BaseSettings(model=base),
        data=DataConfig(crop_on_faces=True, center_crop=True, random_flip=False),
        adapter=AdapterSettings(rank=16),
        objective=ObjectiveSettings(snr_gamma=5.0),
        tokens=TokenSettings(property="object", num_vectors=2),
    )


def object_(base: str) -> TrainingConfig:
    """Return what suits one thing or animal in five to thirty images."""
    return TrainingConfig(
        base=BaseSettings(model=base),
        data=DataConfig(random_flip=True, caption_dropout=0.05),
        adapter=AdapterSettings(rank=8),
        objective=ObjectiveSettings(snr_gamma=5.0),
        tokens=TokenSettings(property="object", num_vectors=2),
    )


def style(base: str) -> TrainingConfig:
    """Return what suits the way in which thirty or more images are drawn."""
    return TrainingConfig(
        base=BaseSettings(model=base),
        data=DataConfig(random_flip=True, crop_variants=8, caption_dropout=0.1),
        adapter=AdapterSettings(rank=32, conv_rank=16),
        objective=ObjectiveSettings(noise_offset=0.05),
        tokens=TokenSettings(property="style", num_vectors=4),
    )


PRESETS: dict[str, Callable[[str], TrainingConfig]] = {
    "face": face,
    "object": object_,
    "style": style,
}


def beneath(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings`, nested, with those of a preset where they say nothing.

    Where no adapter is trained, the preset's settings of it are left out.
    """
    preset = PRESETS[name]("").model_dump(exclude_unset=True, exclude={"base"})
    if settings.get("method") == "textual-inversion":
        preset.pop("adapter", None)
    return _laid_over(preset, settings)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        given = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        if isinstance(given, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _laid_over(merged[key], given)
        else:
            merged[key] = value
    return merged
