"""Events of the training loop; whoever iterates prints, saves and generates previews."""

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
        measure: Held-out loss after the step; None where it was not measured.
        token_embedding_lr: Learning rate of token embeddings that are trained beside an adapter;
            None without both.
    """

    step: int
    loss: torch.Tensor
    learning_rate: float
    buckets: torch.Tensor
    measure: Measure | None = None
    token_embedding_lr: float | None = None


@dataclass(frozen=True)
class ValidationDue:
    """Previews are due; the loop waits until the iteration goes on."""

    step: int


@dataclass(frozen=True)
class CheckpointDue:
    """A checkpoint is due; the loop waits until the iteration goes on."""

    step: int


Event = StepDone | ValidationDue | CheckpointDue
