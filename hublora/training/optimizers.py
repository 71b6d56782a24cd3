"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

import torch

from hublora.errors import ConfigError
from hublora.families import Family
from hublora.training.config.sections import OptimizerSettings, ScheduleSettings
from hublora.training.config.training_config import TrainingConfig
from hublora.training.lora_module import LoraModule

Groups = list[dict[str, Any]]


def check_optimizer(settings: OptimizerSettings) -> None:
    """Check that the optimizer's package is installed.

    Raises:
        ConfigError: The package is missing.
    """
    if settings.name in _PACKAGES:
        _package(settings.name)
    if settings.name == "muon" and not hasattr(torch.optim, "Muon"):
        raise ConfigError(
            f"PyTorch {torch.__version__} has no Muon.", "Install a newer one: pip install -U torch"
        )


_USUAL_WEIGHT_DECAY = 1e-2


def resolve_weight_decay(config: TrainingConfig, family: Family) -> TrainingConfig:
    """Return the settings with the weight decays that were left open filled in.

    Args:
        config: Settings of the training.
        family: Family of the base.
    """
    given = config.optimizer
    usual, of_text = family.weight_decays.get(config.method, (_USUAL_WEIGHT_DECAY, None))
    decay = usual if given.weight_decay is None else given.weight_decay
    filled: dict[str, Any] = {"optimizer.weight_decay": decay}
    if config.adapter.text_encoder and given.text_encoder_weight_decay is None:
        filled["optimizer.text_encoder_weight_decay"] = decay if of_text is None else of_text
    return config.updated(filled)


def parameter_groups(
    settings: OptimizerSettings, adapted: Mapping[str, LoraModule], denoiser: str
) -> Groups:
    """Return the trained weights in groups of one learning rate and weight decay.

    The second matrix of each layer learns `lora_plus_ratio` times as fast as the first one (LoRA+,
    https://huggingface.co/papers/2402.12354, section 4).

    Args:
        settings: Settings of the optimizer.
        adapted: Component -> its adapter.
        denoiser: Name of the component that is the denoiser.
    """
    groups: dict[tuple[float, float | None], list[torch.nn.Parameter]] = {}
    for component, one in adapted.items():
        is_text = component != denoiser
        own = settings.text_encoder_learning_rate if is_text else None
        rate = own or settings.learning_rate
        decay = settings.text_encoder_weight_decay if is_text else settings.weight_decay
        for name, parameter in one.parameters.items():
            faster = settings.lora_plus_ratio if ".lora_B." in name else 1.0
            groups.setdefault((rate * faster, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def token_group(rows: Iterable[torch.nn.Parameter], rate: float) -> Groups:
    """Return the token embeddings as a group without weight decay: zero is no neutral embedding."""
    return [{"params": list(rows), "lr": rate, "weight_decay": 0.0}]


def make_optimizer(
    config: TrainingConfig, groups: Groups, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name.

    Raises:
        ConfigError: It needs a package that is not installed, or cannot train these weights.
    """
    return _OPTIMIZERS[config.optimizer.name](config, groups, device)


def make_schedule(
    settings: ScheduleSettings,
    optimizer: torch.optim.Optimizer,
    steps: int,
    starts: Sequence[int] = (),
    one_rate: bool = False,
) -> Any:
    """Return the learning-rate schedule over `steps` optimizer steps, one of diffusers'.

    Args:
        settings: Settings of the schedule.
        optimizer: The optimizer whose learning rates change.
        steps: Optimizer steps in all.
        starts: Start step of each group's schedule, before which its learning rate is 0; 0 for all
            unless given.
        one_rate: Whether the optimizer takes one learning rate beside 0 for all groups, as Prodigy
            does: a group that starts later then joins the schedule of the others.
    """
    schedule = _schedule(settings, optimizer, steps)
    for group, start in enumerate(starts):
        if start:
            own = _schedule(settings, _stand_in(), max(1, steps - start)).lr_lambdas[0]
            common = schedule.lr_lambdas[group]
            schedule.lr_lambdas[group] = (
                _zero_before(common, start) if one_rate else _delayed(own, start)
            )
    if any(starts):  # the first rates were set before
        for group, rate, factor in zip(
            optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = rate * factor(0)
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]
    return schedule


def _schedule(settings: ScheduleSettings, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    from diffusers.optimization import get_scheduler

    return get_scheduler(
        settings.name,
        optimizer=optimizer,
        step_rules=settings.step_rules,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=steps,
        num_cycles=settings.num_cycles,
        power=settings.power,
    )


def _stand_in() -> torch.optim.Optimizer:
    """Return an optimizer of an unused parameter, for a schedule whose factors alone count."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def _zero_before(factor: Callable[[int], float], start: int) -> Callable[[int], float]:
    return lambda step: factor(step) if step >= start else 0.0


def _delayed(factor: Callable[[int], float], start: int) -> Callable[[int], float]:
    def later(step: int) -> float:
        return factor(step - start) if step >= start else 0.0

    return later


def _adamw(config: TrainingConfig, groups: Groups, device: torch.device) -> torch.optim.Optimizer:
    fused = device.type in ("cuda", "cpu")
    return torch.optim.AdamW(groups, fused=fused, **_adam_settings(config.optimizer))


def _adamw_8bit(
    config: TrainingConfig, groups: Groups, device: torch.device
) -> torch.optim.Optimizer:
    kind = _package("adamw-8bit").optim.AdamW8bit
    return kind(groups, **_adam_settings(config.optimizer))


def _prodigy(config: TrainingConfig, groups: Groups, device: torch.device) -> torch.optim.Optimizer:
    with redirect_stdout(StringIO()):  # it prints how it decays, and stdout is for data
        return _package("prodigy").Prodigy(
            groups,
            use_bias_correction=True,
            safeguard_warmup=True,
            beta3=config.optimizer.beta3,
            **_adam_settings(config.optimizer),
        )


def _adafactor(
    config: TrainingConfig, groups: Groups, device: torch.device
) -> torch.optim.Optimizer:
    """Adafactor at the learning rate that is set. Scaled by the size of the weights, as it is by
    default, it would leave an adapter near its initial zeros."""
    from transformers.optimization import Adafactor

    return Adafactor(
        groups,
        lr=config.optimizer.learning_rate,
        weight_decay=config.optimizer.weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )


def _schedule_free(
    config: TrainingConfig, groups: Groups, device: torch.device
) -> torch.optim.Optimizer:
    optimizer = _package("schedule-free").AdamWScheduleFree(
        groups, warmup_steps=config.schedule.warmup_steps, **_adam_settings(config.optimizer)
    )
    optimizer.train()
    return optimizer


def _muon(config: TrainingConfig, groups: Groups, device: torch.device) -> torch.optim.Optimizer:
    if any(parameter.ndim != 2 for group in groups for parameter in group["params"]):
        raise ConfigError(
            "The optimizer muon trains matrices, and this adapter has weights of other shapes.",
            "Leave adapter.conv_rank and adapter.method out, or choose another optimizer.",
        )
    return torch.optim.Muon(
        groups,
        lr=config.optimizer.learning_rate,
        weight_decay=config.optimizer.weight_decay,
        adjust_lr_fn="match_rms_adamw",  # so that learning rates mean what they mean for AdamW
    )


def _adam_settings(settings: OptimizerSettings) -> dict[str, Any]:
    return {
        "lr": settings.learning_rate,
        "betas": (settings.beta1, settings.beta2),
        "weight_decay": settings.weight_decay,
        "eps": settings.epsilon,
    }


# Optimizer -> module that it comes from, and the extra of hublora that installs it.
_PACKAGES = {
    "adamw-8bit": ("bitsandbytes", "8bit"),
    "prodigy": ("prodigyopt", "prodigy"),
    "schedule-free": ("schedulefree", "schedule-free"),
}


def _package(optimizer: str) -> Any:
    module, extra = _PACKAGES[optimizer]
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"The optimizer {optimizer} needs {module}.",
            f"Install it: pip install 'hublora[{extra}]'",
        ) from error


_OPTIMIZERS: dict[str, Callable[[TrainingConfig, Groups, torch.device], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw-8bit": _adamw_8bit,
    "prodigy": _prodigy,
    "adafactor": _adafactor,
    "schedule-free": _schedule_free,
    "muon": _muon,
}
