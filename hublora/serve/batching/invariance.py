"""Makes a denoiser on a CPU compute every request as if it were alone.

Libraries choose another order of sums for other sizes: on a CPU in float32, that is so in linear
layers of few rows (time embeddings, small images) and in some convolutions. Time embeddings are
padded to 32 rows; linear layers of fewer tokens than that, and convolutions, are called for each
request. So an image has the same bits whatever meets it in its batch. On a GPU nothing is changed:
images differ by rounding there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_ENOUGH_ROWS = 32
"""Rows from which a product of matrices has its sums in an order that does not depend on them."""

_Forward = Callable[[torch.Tensor], torch.Tensor]


class RowInvariance:
    """Makes the layers of a model independent of the number of requests in a batch.

    Args:
        model: A denoiser on the CPU.

    Attributes:
        requests: Number of requests in the next batch; each has equally many rows.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.requests = 1
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.forward = self._projected(module.forward)
            elif isinstance(module, torch.nn.Conv2d):
                module.forward = self._one_by_one(module.forward)

    def _projected(self, compute: _Forward) -> _Forward:
        alone = self._one_by_one(compute)

        def forward(x: torch.Tensor) -> torch.Tensor:
            if x.ndim == 2:
                padding = x.new_zeros(-len(x) % _ENOUGH_ROWS, x.shape[1])
                return compute(torch.cat([x, padding]))[: len(x)]
            rows = x.shape[:-1].numel() // self.requests
            return compute(x) if rows >= _ENOUGH_ROWS else alone(x)

        return forward

    def _one_by_one(self, compute: _Forward) -> _Forward:
        def forward(x: torch.Tensor) -> torch.Tensor:
            if self.requests == 1:
                return compute(x)
            return torch.cat([compute(part) for part in x.chunk(self.requests)])

        return forward
