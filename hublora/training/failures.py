"""Failures inside a training, as errors that say what to change."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hublora.errors import ConfigError
from hublora.training.config.training_config import TrainingConfig

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: a limit of the process
_CPU_ALLOCATION = "can't allocate memory"  # of torch's RuntimeError where there is no GPU


class Diverged(ConfigError):
    """The loss or the weights are no longer finite.

    Args:
        step: The first step with a value that is not finite.
        what: "loss" or "weights".
    """

    def __init__(self, step: int, what: str) -> None:
        verb = "is" if what == "loss" else "are"
        super().__init__(
            f"The {what} of step {step} {verb} not finite: the training has diverged.",
            "Lower --learning-rate, or use bf16 in place of fp16.",
        )
        self.step = step


@contextmanager
def explained(config: TrainingConfig, side: int) -> Iterator[None]:
    """Turn divergence, exhausted memory and a full disk into an error that says how to resume.

    Args:
        config: Settings of the training.
        side: Side of the images in pixels.

    Raises:
        ConfigError: Naming the last good checkpoint and what to change.
    """
    try:
        yield
    except Diverged as error:
        error.hint = f"{error.hint} {last_good(config.run_folder)}"
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"The device ran out of memory: {smaller(config, side)}.",
            last_good(config.run_folder),
        ) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ConfigError(
            f"The disk of {config.run_folder} is full.",
            f"Free some space, or lower --checkpoints-total-limit. {last_good(config.run_folder)}",
        ) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch ran out of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or _CPU_ALLOCATION in str(error)


def smaller(config: TrainingConfig, side: int) -> str:
    """Return the setting that needs less memory at the least cost, as an instruction.

    The number of images a step stays the same where it can.
    """
    if not config.gradient_checkpointing:
        return "add --gradient-checkpointing"
    size, accumulation_steps = config.train_batch_size, config.gradient_accumulation_steps
    if size > 1:
        half = next(n for n in range(size // 2, 0, -1) if size % n == 0)
        more = accumulation_steps * size // half
        return f"use --train-batch-size {half} --gradient-accumulation-steps {more}"
    if config.optimizer.name == "adamw":
        return f"use --optimizer adamw-8bit, or --resolution {side // 2}"
    return f"use --resolution {side // 2}"


def last_good(run: Path) -> str:
    """Return the last checkpoint and how to resume from it, as a sentence."""
    from hublora.training.run_folder import list_checkpoints, resume_command

    found = list_checkpoints(run)
    if not found:
        return "No checkpoint was saved yet."
    return f"The last good checkpoint is {found[-1]}. Resume from it: {resume_command(run)}"
