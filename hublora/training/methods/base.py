"""The Protocol of a training method."""

from __future__ import annotations

from typing import Protocol

from hublora.data import DataConfig, Source
from hublora.training.config.training_config import TrainingConfig


class Method(Protocol):
    """A training method.

    Attributes:
        name: Value of `TrainingConfig.method`.
        trains_adapter: Whether layers of the base get an adapter.
        trains_tokens: Whether token embeddings are trained.
    """

    name: str
    trains_adapter: bool
    trains_tokens: bool

    def data(self, config: TrainingConfig) -> DataConfig:
        """Return the data settings, with a default caption where the method gives one, so that
        images without captions are not skipped."""
        ...

    def caption(self, config: TrainingConfig, source: Source) -> Source:
        """Return the images with the captions that they are trained with.

        Raises:
            ConfigError: A caption lacks what the method needs.
        """
        ...

    def adapter_start_step(self, config: TrainingConfig, steps: int) -> int:
        """Return the step, of `steps` in all, from which on the adapter is trained."""
        ...
