"""What the training loop tells; printing, saving and previewing are up to who listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StepDone:
    """One optimizer step is done.

    Attributes:
        step: Counted from 1.
        loss: Scalar, still on the device: reading its value waits for the device.
        learning_rate: That the step used.
    """

    step: int
    loss: torch.Tensor
    learning_rate: float


@dataclass(frozen=True)
class ValidationDue:
    """It is time to draw the validation prompts; the loop waits."""

    step: int


@dataclass(frozen=True)
class CheckpointDue:
    """It is time to save; the loop waits."""

    step: int


Event = StepDone | ValidationDue | CheckpointDue
