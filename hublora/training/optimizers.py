"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hublora.errors import ConfigError
from hublora.training.config import OptimizerSettings, ScheduleSettings


def check_optimizer(settings: OptimizerSettings) -> None:
    """Check that the optimizer's package is there.

    Raises:
        ConfigError: It is not.
    """
    if settings.name == "adamw-8bit":
        _bitsandbytes()


def make_optimizer(
    settings: OptimizerSettings, parameters: list[torch.nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name.

    Raises:
        ConfigError: It needs a package that is not installed.
    """
    return _OPTIMIZERS[settings.name](
        parameters,
        device,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        eps=settings.epsilon,
    )


def make_schedule(settings: ScheduleSettings, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Return the learning-rate schedule over `steps` optimizer steps."""
    from diffusers.optimization import get_scheduler

    return get_scheduler(
        settings.name,
        optimizer=optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=steps,
    )


def _adamw(
    parameters: list[torch.nn.Parameter], device: torch.device, **settings: Any
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=device.type in ("cuda", "cpu"), **settings)


def _adamw_8bit(
    parameters: list[torch.nn.Parameter], device: torch.device, **settings: Any
) -> torch.optim.Optimizer:
    return _bitsandbytes().optim.AdamW8bit(parameters, **settings)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError(
            "The 8-bit optimizer needs bitsandbytes.", "Install it: pip install 'hublora[8bit]'"
        ) from error
    return bitsandbytes


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw-8bit": _adamw_8bit,
}
