"""The step of an image, from the timestep that the denoiser is called with.

A step is an index into the scheduler's timesteps, counted from the first one that an image uses: an
image-to-image call starts late, a second-order scheduler lists timesteps twice, and a pipeline may
call the denoiser more than once a step. Every call of a pipeline sets new timesteps, so an image
that was interrupted leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hublora.errors import ConfigError

_ROUNDING = 1e-3  # of float32, for the smallest timesteps
_TOLERANCE = 0.01  # relative: a pipeline may round timesteps to bfloat16


class StepCounter:
    """Counts the steps of one image after the other.

    Args:
        scheduler_timestep: The scheduler's timestep for the one that the denoiser is called with.
    """

    def __init__(self, scheduler_timestep: Callable[[float], float]) -> None:
        self._scheduler_timestep = scheduler_timestep
        self._timesteps: torch.Tensor | None = None
        self._first = self._last = 0

    def step(self, scheduler: Any, timestep: Any) -> tuple[int, int]:
        """Return the step of the image, from 0, and the number of its steps.

        Args:
            scheduler: The pipeline's; outside of a pipeline's call, every step is the first.
            timestep: Timestep of the denoiser's call: a number or a tensor of equal ones.

        Raises:
            ConfigError: The timestep is not one of the scheduler's.
        """
        if getattr(scheduler, "num_inference_steps", None) is None or timestep is None:
            return 0, 1
        timesteps = scheduler.timesteps
        is_new = timesteps is not self._timesteps
        last = -1 if is_new else self._last
        index = _index(timestep, timesteps, last, self._scheduler_timestep)
        if is_new or index < last:
            self._timesteps, self._first = timesteps, index
        self._last = index
        return index - self._first, len(timesteps) - self._first


def _index(
    timestep: Any,
    timesteps: torch.Tensor,
    last: int,
    scheduler_timestep: Callable[[float], float],
) -> int:
    """Return the index of a timestep; of equal ones, `last` or the first after it."""
    if isinstance(timestep, torch.Tensor):
        own, whole = timestep.untyped_storage(), timesteps.untyped_storage()
        if own.data_ptr() == whole.data_ptr():  # an element of it: the value need not be read
            return timestep.storage_offset() - timesteps.storage_offset()
    value = float(torch.as_tensor(timestep).flatten()[0])
    values, scaled = timesteps.tolist(), scheduler_timestep(value)
    nearest = min(values, key=lambda one: abs(one - scaled))
    if abs(nearest - scaled) <= max(_TOLERANCE * abs(scaled), _ROUNDING):
        found = [index for index, one in enumerate(values) if one == nearest]
        return next((index for index in found if index >= last), found[0])
    raise ConfigError(
        f"The denoiser is called at timestep {value:g}, which pipe.scheduler does not have.",
        "Adapters that switch, and weights that move, follow the scheduler of the pipeline that "
        "hublora loaded: assign the one that is used to its pipe.scheduler.",
    )
