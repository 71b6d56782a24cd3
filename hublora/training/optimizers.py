"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hublora.errors import ConfigError
from hublora.training.adapting import Adapted
from hublora.training.config import OptimizerSettings, ScheduleSettings


def check_optimizer(settings: OptimizerSettings) -> None:
    """Check that the optimizer's package is there.

    Raises:
        ConfigError: It is not.
    """
    if settings.name == "adamw-8bit":
        _bitsandbytes()


def parameter_groups(
    settings: OptimizerSettings, adapted: Mapping[str, Adapted], denoiser: str
) -> list[dict[str, Any]]:
    """Return the trained weights in groups of one learning rate.

    The second matrix of each layer learns `lora_plus_ratio` times as fast as the first one (LoRA+,
    https://huggingface.co/papers/2402.12354, section 4).

    Args:
        settings: Of the optimizer.
        adapted: Component -> it with the adapter.
        denoiser: Which one of them is the denoiser.
    """
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for component, one in adapted.items():
        own = settings.text_encoder_learning_rate if component != denoiser else None
        rate = own or settings.learning_rate
        for name, parameter in one.parameters.items():
            faster = settings.lora_plus_ratio if ".lora_B." in name else 1.0
            groups.setdefault(rate * faster, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def make_optimizer(
    settings: OptimizerSettings, groups: list[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name.

    Raises:
        ConfigError: It needs a package that is not installed.
    """
    return _OPTIMIZERS[settings.name](
        groups,
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
    groups: list[dict[str, Any]], device: torch.device, **settings: Any
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, fused=device.type in ("cuda", "cpu"), **settings)


def _adamw_8bit(
    groups: list[dict[str, Any]], device: torch.device, **settings: Any
) -> torch.optim.Optimizer:
    return _bitsandbytes().optim.AdamW8bit(groups, **settings)


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
