"""The difference of two measures of the held-out loss, and its standard error."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import torch

CLEAR = 2.0  # standard errors beyond which two measures differ by more than their error


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of losses that were measured at the same images, timesteps and noise.

    Attributes:
        mean: Mean of the second losses minus the first ones.
        error: Standard error of `mean`, at least 0; infinite for a single pair.
    """

    mean: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether the second losses are higher by more than the error of the measure."""
        return isfinite(self.error) and self.mean > CLEAR * self.error


def paired_difference(
    first: torch.Tensor, second: torch.Tensor, per_image: int
) -> PairedDifference:
    """Return by how much the second losses are higher than the first ones.

    Losses of one image resemble each other, so the error is the larger one of that over all pairs
    and that over the images' means.

    Args:
        first: [images · per_image] losses, those of one image together.
        second: Losses of the same shape and order.
        per_image: Losses per image, at least 1.
    """
    pairs = (second - first).double()
    images = pairs.view(-1, per_image).mean(dim=1)
    known = [_standard_error(values) for values in (pairs, images) if len(values) > 1]
    return PairedDifference(pairs.mean().item(), max(known, default=inf))


def _standard_error(values: torch.Tensor) -> float:
    return (values.std() / len(values) ** 0.5).item()
