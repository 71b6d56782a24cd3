"""An adapter from captioned images (LoRA, https://huggingface.co/papers/2106.09685)."""

from __future__ import annotations

from hublora.data import DataConfig, Source
from hublora.training.config.training_config import TrainingConfig


class TextToImage:
    """Trains an adapter on images with their own captions."""

    name = "text-to-image"
    trains_adapter = True
    trains_tokens = False

    def data(self, config: TrainingConfig) -> DataConfig:
        return config.data

    def caption(self, config: TrainingConfig, source: Source) -> Source:
        return source

    def adapter_start_step(self, config: TrainingConfig, steps: int) -> int:
        return 0
