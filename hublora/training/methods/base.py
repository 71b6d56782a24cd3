"""What a training asks of its method."""

from __future__ import annotations

from typing import Protocol

from hublora.data import DataConfig, Source
from hublora.training.config.training_config import TrainingConfig


class Method(Protocol):
    """One way to learn from images.

    Attributes:
        name: As `TrainingConfig.method`.
        trains_adapter: Whether updates of the base's layers are learned.
        trains_tokens: Whether new words are learned.
    """

    name: str
    trains_adapter: bool
    trains_tokens: bool

    def data(self, config: TrainingConfig) -> DataConfig:
        """Return how the images are opened: the data settings, so that no image is left out
        which the method has a caption for."""
        ...

    def caption(self, config: TrainingConfig, source: Source) -> Source:
        """Return the images under the captions that they are trained with.

        Raises:
            ConfigError: The captions do not say what is to be learned.
        """
        ...

    def adapter_start_step(self, config: TrainingConfig, steps: int) -> int:
        """Return after how many of `steps` optimizer steps the adapter begins to learn."""
        ...
