"""Fit a training into memory: config ─ measured steps ─▶ batch size, accumulation, checkpointing.

The effective batch size stays: half the batch is twice the gradient accumulation steps. Over 300
lines because a split, its measure and the sentences about both are read together.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.progress import Callback, Note, default_callback, no_callback
from hublora.workflows.train.card_facts import peak_memory
from hublora.workflows.train.dry_run import local_checkpoint, measure_step, trial
from hublora.workflows.train.fit_plan import plan_fit

if TYPE_CHECKING:
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.session import Session

_MOST_TRIALS = 4  # of batches larger than one, with and without checkpointing


@dataclass(frozen=True)
class BatchSplit:
    """How the images of an optimizer step are split into batches.

    Attributes:
        batch_size: Images of a batch, at least 1.
        accumulation_steps: Batches of an optimizer step, at least 1.
        checkpointing: Whether gradient checkpointing recomputes activations.
    """

    batch_size: int
    accumulation_steps: int
    checkpointing: bool


@dataclass(frozen=True)
class Cost:
    """Memory and time of an optimizer step.

    Attributes:
        memory: Peak in bytes.
        seconds: Duration of the whole step.
    """

    memory: int
    seconds: float


Measure = Callable[[BatchSplit], "Cost | None"]  # None: memory ran out


def fit(
    config: TrainingConfig,
    limit: float | None = None,
    *,
    resume: str | None = None,
    callback: Callback = default_callback,
) -> TrainingConfig:
    """Return the settings with the batch size, gradient accumulation and checkpointing that fit
    and are fastest; of a transformer with its quantisation and block swap, too.

    A transformer's memory is computed from its config, before anything large is downloaded; that of
    a U-Net is measured.

    Args:
        config: Settings of the training; its effective batch size stays.
        limit: GiB that a step may use (default: what the device has).
        resume: As for `train`.
        callback: Called with what was chosen.

    Raises:
        ConfigError: Nothing fits, or there are several processes.
        HubloraError: The training could not start.
    """
    from hublora.training.distributed import join_processes
    from hublora.workflows.train.prepare import prepare_run

    if join_processes().num_processes > 1:
        raise ConfigError(
            "--fit measures in one process.",
            "Let `hublora train … --fit --dry-run` choose, and give what it shows.",
        )
    available = available_memory() if limit is None else int(limit * GIB)
    if resume is None and (planned := plan_fit(config, available, callback)) is not None:
        return planned
    with local_checkpoint(resume) as checkpoint:
        ready = prepare_run(config, checkpoint, no_callback)
    callback(Note("Measuring what fits …"))
    with trial(ready, images=2) as (session, _):
        side = max(session.data.size)
        splits = _splits(config, session.family.gradient_checkpointing)
        chosen = choose(_measuring(session), splits, available)
    del session, ready
    gc.collect()
    if isinstance(chosen, Cost):
        raise _too_large(config, chosen, available, side)
    split, cost = chosen
    callback(Note(_describe(split, cost, available)))
    return _with(config, split)


def choose(
    measure: Measure, splits: list[BatchSplit], limit: int
) -> tuple[BatchSplit, Cost] | Cost:
    """Return the fastest split that fits and its cost; if none does, the cost of the smallest.

    Args:
        measure: Function from a split to its measured cost.
        splits: Splits to choose from.
        limit: Memory in bytes.
    """
    found: list[tuple[BatchSplit, Cost]] = []
    smallest: Cost | None = None
    for checkpointing in (False, True):
        group = sorted((w for w in splits if w.checkpointing == checkpointing), key=_batch)
        if not group:
            continue
        first = measure(group[0])
        smallest = first or smallest
        if first is None or first.memory > limit:
            continue
        best = _largest(measure, group, first, limit)
        found.append(best)
        if best[0] == group[-1]:
            break  # nothing is faster than one batch without checkpointing
    if found:
        return min(found, key=lambda one: one[1].seconds)
    return smallest or Cost(0, 0.0)


def _largest(
    measure: Measure, group: list[BatchSplit], first: Cost, limit: int
) -> tuple[BatchSplit, Cost]:
    """Return the split with the largest batch that fits; memory grows linearly with the batch."""
    best = (group[0], first)
    larger = group[1:]
    for _ in range(_MOST_TRIALS):
        if not larger:
            break
        split, cost = best
        # From two measures on, the next guess goes as far as the growth between them allows.
        growth = (
            (cost.memory - first.memory) / max(1, split.batch_size - 1)
            if split.batch_size > 1
            else None
        )
        reach = [
            one
            for one in larger
            if growth is None or cost.memory + growth * (one.batch_size - split.batch_size) <= limit
        ]
        guess = larger[0] if growth is None else reach[-1] if reach else larger[0]
        taken = measure(guess)
        if taken is not None and taken.memory <= limit:
            best = (guess, taken)
            larger = [one for one in larger if one.batch_size > guess.batch_size]
        else:
            larger = [one for one in larger if one.batch_size < guess.batch_size]
    return best


def _splits(config: TrainingConfig, can_checkpoint: bool = True) -> list[BatchSplit]:
    """Return all splits of the effective batch size, smallest batches first.

    With several shapes a batch has images of one only.
    """
    size = config.train_batch_size
    most = images = size * config.gradient_accumulation_steps
    if config.data.has_several_shapes:
        most = gcd(images, config.data.bucket_batch or size)
    batches = [n for n in range(1, most + 1) if most % n == 0]
    kinds = (True,) if config.gradient_checkpointing else (False, True)[: 1 + can_checkpoint]
    return [BatchSplit(n, images // n, kind) for kind in kinds for n in batches]


def _measuring(session: Session) -> Measure:
    """Return a function that measures a batch of a split; the session's weights do not matter."""
    from hublora.training.failures import is_out_of_memory

    denoiser = session.trained[session.family.denoiser]
    config = session.config

    def measure(split: BatchSplit) -> Cost | None:
        alone = {"train_batch_size": split.batch_size, "gradient_accumulation_steps": 1}
        session.config = config.updated(alone)
        session.step, session.is_over = 0, False
        if split.checkpointing:
            denoiser.enable_gradient_checkpointing()
        elif not config.gradient_checkpointing:
            denoiser.disable_gradient_checkpointing()
        memory = StepMemory()
        try:
            seconds = measure_step(session)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            return None
        finally:
            session.optimizer.zero_grad()
        return Cost(memory.peak(), seconds * split.accumulation_steps)

    return measure


def _with(config: TrainingConfig, split: BatchSplit) -> TrainingConfig:
    chosen: dict[str, Any] = {
        "train_batch_size": split.batch_size,
        "gradient_accumulation_steps": split.accumulation_steps,
        "gradient_checkpointing": split.checkpointing,
    }
    if config.data.has_several_shapes:  # the order of the images stays that of the larger batch
        batch = config.data.bucket_batch or config.train_batch_size
        chosen["data.bucket_batch"] = batch
    return config.updated(chosen)


def _describe(split: BatchSplit, cost: Cost, limit: int) -> str:
    accumulated = (
        f" in {split.accumulation_steps} accumulation steps" if split.accumulation_steps > 1 else ""
    )
    how = " with gradient checkpointing" if split.checkpointing else ""
    return (
        f"Fits: batches of {split.batch_size}{accumulated}{how} take {cost.memory / GIB:.2f} of "
        f"{limit / GIB:.2f} GiB, {cost.seconds:.2g} s a step."
    )


def _too_large(config: TrainingConfig, cost: Cost, limit: int, side: int) -> ConfigError:
    from hublora.training.failures import smaller

    least = config.updated({"train_batch_size": 1, "gradient_checkpointing": True})
    needs = f"{cost.memory / GIB:.2f} GiB" if cost.memory else "more"
    return ConfigError(
        f"One image at a time with gradient checkpointing needs {needs}, and {limit / GIB:.2f} "
        "GiB are available.",
        f"To need less, {smaller(least, side)}.",
    )


def _batch(split: BatchSplit) -> int:
    return split.batch_size


GIB = 2**30
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_OF_A_GROUP = Path("/sys/fs/cgroup/memory.max")
_USABLE = 0.9  # of the memory that is free on a CPU; others want some too


class StepMemory:
    """Measures peak memory from its creation on."""

    def __init__(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):  # not Linux, or not allowed: then it only grows
            _RESET.write_text("5")  # see proc(5): resets the peak resident set

    def peak(self) -> int:
        """Return the peak in bytes, with what other processes use of the GPU."""
        import torch

        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            others = total - free - torch.cuda.memory_reserved()
            return int(torch.cuda.max_memory_reserved() + others)
        return _status("VmHWM") or peak_memory()


def available_memory() -> int:
    """Return the bytes that this process may use on the device, its present use included."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        available = int(free * 1024 * _USABLE) + (_status("VmRSS") or 0)
        with contextlib.suppress(OSError, ValueError):  # there is no group, or it has no limit
            available = min(available, int(_OF_A_GROUP.read_text()))
        return available
    import os

    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _USABLE)


def _status(name: str) -> int | None:
    """Return a size of this process from /proc in bytes; None where there is none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return int(found.split()[1]) * 1024 if found else None
