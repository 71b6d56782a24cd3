"""The accelerator of a training: device, precision, processes, trackers."""

from __future__ import annotations

import platform

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from hublora.errors import ConfigError
from hublora.training.config.training_config import TrainingConfig
from hublora.training.run_folder import TRACKER_LOGS
from hublora.training.trackers import choose_trackers

_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Return the accelerator for the settings.

    Raises:
        ConfigError: The precision does not work on this device, or a tracker is not installed.
    """
    precision = config.mixed_precision or _default_precision()
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            "fp16 needs a GPU; this machine has none that PyTorch can use.",
            "Leave --mixed-precision out.",
        )
    # accelerate keeps the first precision of a process; a notebook may train again in another.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision,
        log_with=choose_trackers(config.report_to) or None,
        project_dir=config.run_folder / TRACKER_LOGS,
    )


def weight_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the dtype of the frozen weights."""
    return _DTYPES[accelerator.mixed_precision]


def planned_dtype(config: TrainingConfig) -> torch.dtype:
    """Return the dtype that the frozen weights of a training will have on this machine."""
    return _DTYPES[config.mixed_precision or _default_precision()]


def device_name(accelerator: Accelerator) -> str:
    """Return the name of the device, for logs and cards."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"{accelerator.device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _default_precision() -> str:
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "no"
