"""What the training loop tells; printing, saving and previewing are up to who listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hublora.training.held_out_loss import Measure


@dataclass(frozen=True)
class StepDone:
    """One optimizer step is done.

    Attributes:
        step: Counted from 1.
        loss: Scalar, still on the device: reading its value waits for the device.
        learning_rate: Learning rate of the step: the adapter's, else the token embeddings'.
        buckets: [2, BUCKETS] on the device: sums and counts of the samples' losses by part of the
            timesteps.
        measure: The loss on the held-out images after the step, if it was measured.
        token_embedding_lr: The words' learning rate where they learn beside an adapter.
    """

    step: int
    loss: torch.Tensor
    learning_rate: float
    buckets: torch.Tensor
    measure: Measure | None = None
    token_embedding_lr: float | None = None


@dataclass(frozen=True)
class ValidationDue:
    """It is time to draw the validation prompts; the loop waits."""

    step: int


@dataclass(frozen=True)
class CheckpointDue:
    """It is time to save; the loop waits."""

    step: int


Event = StepDone | ValidationDue | CheckpointDue
