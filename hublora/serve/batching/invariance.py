"""Makes a denoiser on a CPU compute every row as if it were alone.

Libraries choose another order of sums for other batch sizes: on a CPU in float32, that is so in
linear layers of two-dimensional inputs (time embeddings) and in some convolutions. The first are
padded to 32 rows, the second called for each request, so that an image has the same bits whatever
meets it in its batch. On a GPU nothing is changed: images differ by rounding there.
"""

from __future__ import annotations

from typing import Any

import torch

_PADDED_ROWS = 32


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
                module.forward = _padded(module)
            elif isinstance(module, torch.nn.Conv2d):
                module.forward = self._alone(module)

    def _alone(self, module: torch.nn.Conv2d) -> Any:
        compute = module.forward

        def forward(x: torch.Tensor) -> torch.Tensor:
            if self.requests == 1:
                return compute(x)
            return torch.cat([compute(part) for part in x.chunk(self.requests)])

        return forward


def _padded(module: torch.nn.Linear) -> Any:
    compute = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 2 or len(x) % _PADDED_ROWS == 0:
            return compute(x)
        missing = -len(x) % _PADDED_ROWS
        return compute(torch.cat([x, x.new_zeros(missing, x.shape[1])]))[: len(x)]

    return forward
