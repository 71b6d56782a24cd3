"""Everything that a training holds in memory, put together once before the first step."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from hublora.adapters.adapter import Adapter, AdapterFacts, LowRank
from hublora.data.cache import TrainingData
from hublora.errors import ConfigError
from hublora.families import Diffusion, Family
from hublora.training.adapting import Adapted, adapt, start_from
from hublora.training.config import TrainingConfig
from hublora.training.optimizers import (
    check_optimizer,
    make_optimizer,
    make_schedule,
    parameter_groups,
)
from hublora.training.order import BucketOrder
from hublora.training.randomness import split
from hublora.training.targets import find_targets, trained_components
from hublora.training.trackers import FOLDER, choose_trackers

DEFAULT_STEPS = 1000
_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Session:
    """The parts of one training.

    Attributes:
        config: Its settings.
        family: Of the base.
        pipe: The base; its denoiser (and text encoder, if asked) carries the adapter.
        data: Encoded pictures and captions.
        data_fingerprint: Identity of the pictures and captions; a resumed run needs the same.
        adapted: Component -> it with the adapter.
        diffusion: The base's noising process, on the device.
        accelerator: Device, precision and processes.
        denoiser: The denoiser as prepared for the devices.
        optimizer: Over the adapter's weights.
        schedule: Of the learning rate.
        shown: Which pictures are trained on in one pass, repeated ones several times.
        held_out: Which pictures are kept apart for measuring.
        order: In which order they are shown where batches are of one shape; None otherwise.
        average: Moving average of the adapter's weights, None without one.
        measures: Step and loss of every measure on the held-out pictures.
        best: State of the adapter when it measured best, by component; empty before.
        step: Optimizer steps done.
        is_over: Whether there is nothing more to train.
        is_settled: Whether the adapter's weights are those to be used: see `settle`.
    """

    config: TrainingConfig
    family: Family
    pipe: Any
    data: TrainingData
    data_fingerprint: str
    adapted: dict[str, Adapted]
    diffusion: Diffusion
    accelerator: Accelerator
    denoiser: torch.nn.Module
    optimizer: Any
    schedule: Any
    shown: list[int]
    held_out: list[int]
    order: BucketOrder | None = None
    average: Any = None
    measures: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    step: int = 0
    is_over: bool = False
    is_settled: bool = False

    @property
    def trained(self) -> dict[str, torch.nn.Module]:
        """The components that carry the adapter, unwrapped."""
        return {name: adapted.model for name, adapted in self.adapted.items()}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The weights that are trained, as a list: an iterator would be spent once."""
        return [p for adapted in self.adapted.values() for p in adapted.parameters.values()]

    @property
    def images_per_step(self) -> int:
        config = self.config
        return (
            config.train_batch_size
            * config.gradient_accumulation_steps
            * self.accelerator.num_processes
        )

    @property
    def total_steps(self) -> int:
        return total_steps(self.config, len(self.shown), self.images_per_step)

    @property
    def best_loss(self) -> float | None:
        """The lowest measure so far, None before the first one."""
        return min((loss for _, loss in self.measures), default=None)

    def remember_best(self) -> None:
        """Keep a copy of the adapter that people would use now."""
        with self.averaged():
            self.best = {
                component: {name: tensor.cpu().clone() for name, tensor in one.state().items()}
                for component, one in self.adapted.items()
            }

    def settle(self) -> None:
        """Make the adapter that is to be used the one that is there; the training is over.

        It is the one that measured best, else the averaged one, else the last one.
        """
        if not (self.config.holdout.keep_best and self.best):
            self.remember_best()
        for component, state in self.best.items():
            self.adapted[component].load_state(state)
        self.is_settled = True

    def adapter(self, facts: AdapterFacts | None = None) -> Adapter:
        """Return a copy of the adapter that people use now, in float32 on the CPU: the averaged
        one where there is an average."""
        with self.averaged():
            layers = {name: adapted.read() for name, adapted in self.adapted.items()}
        return Adapter(layers, facts or AdapterFacts())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place of the trained ones, if there is an average: a moving
        one, or that of a schedule-free optimizer. Afterwards every bit is as it was."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        averages = hasattr(optimizer, "eval")
        if self.is_settled or (self.average is None and not averages):
            yield
            return
        parameters = self.parameters
        kept = [parameter.detach().clone() for parameter in parameters]
        if self.average is not None:
            self.average.copy_to(parameters)
        else:
            optimizer.eval()
        try:
            yield
        finally:
            if averages:
                optimizer.train()
            torch._foreach_copy_([parameter.data for parameter in parameters], kept)

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        """Let the pipeline be that of the base, without the adapter."""
        with ExitStack() as stack:
            for adapted in self.adapted.values():
                stack.enter_context(adapted.without())
            yield


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Return the accelerator for the settings.

    Raises:
        ConfigError: The precision does not work on this device, or a tracker is not there.
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
        project_dir=config.run_folder / FOLDER,
    )


def weight_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the type of the frozen weights."""
    return _DTYPES[accelerator.mixed_precision]


def check_settings(config: TrainingConfig, family: Family, pipe: Any) -> None:
    """Check what can be checked of the settings before anything is encoded.

    Raises:
        ConfigError: A target matches no layer of the base, or a package is missing.
    """
    check_optimizer(config.optimizer)
    for component in trained_components(config, family):
        find_targets(config.adapter, component, getattr(pipe, component), family)


def start_session(
    config: TrainingConfig,
    family: Family,
    pipe: Any,
    data: TrainingData,
    data_fingerprint: str,
    accelerator: Accelerator,
    begin: Mapping[str, Mapping[str, LowRank]] | None = None,
) -> Session:
    """Put an untrained adapter on the base and make optimizer and schedule.

    Args:
        config: The settings.
        family: Of the base.
        pipe: The base.
        data: Encoded pictures and captions.
        data_fingerprint: Identity of the pictures and captions.
        accelerator: Device, precision and processes.
        begin: Component -> layer, as the base names it -> update to start from.

    Raises:
        ConfigError: `begin` does not fit what is trained, or no picture is left to train on.
    """
    set_seed(config.seed)
    adapted = _adapt_all(config, family, pipe, accelerator.device, begin or {})
    denoiser = adapted[family.denoiser].model
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    groups = parameter_groups(config.optimizer, adapted, family.denoiser)
    optimizer = make_optimizer(config, groups, accelerator.device)
    shown, held_out = split(config.seed, len(data), config.holdout.pictures)
    if not shown:
        raise ConfigError(
            f"holdout.pictures keeps all of the {len(data)} pictures apart.", "Keep fewer apart."
        )
    shown = [index for index in shown for _ in range(data.repeats[index])]
    images = config.train_batch_size * config.gradient_accumulation_steps
    steps = total_steps(config, len(shown), images * accelerator.num_processes)
    schedule = make_schedule(config.schedule, optimizer, steps)
    diffusion = family.diffusion(pipe)
    return Session(
        config=config,
        family=family,
        pipe=pipe,
        data=data,
        data_fingerprint=data_fingerprint,
        adapted=adapted,
        diffusion=Diffusion(diffusion.prediction, diffusion.alphas_cumprod.to(accelerator.device)),
        accelerator=accelerator,
        denoiser=accelerator.prepare(denoiser),
        optimizer=accelerator.prepare(optimizer),
        schedule=schedule,
        shown=shown,
        held_out=held_out,
        order=_bucket_order(config, data, shown),
        average=_average(config, adapted),
    )


def _bucket_order(
    config: TrainingConfig, data: TrainingData, shown: Sequence[int]
) -> BucketOrder | None:
    if not config.data.aspect_buckets:
        return None
    buckets: list[list[int]] = [[] for _ in data.bucket_sizes]
    for index in shown:
        buckets[data.bucket_of[index]].append(index)
    return BucketOrder(config.seed, buckets, config.data.bucket_batch or config.train_batch_size)


def _adapt_all(
    config: TrainingConfig,
    family: Family,
    pipe: Any,
    device: torch.device,
    begin: Mapping[str, Mapping[str, LowRank]],
) -> dict[str, Adapted]:
    """Put the adapter on every component that is trained, and bring those to the device."""
    for name in family.text_encoders:
        getattr(pipe, name).requires_grad_(False)
    adapted: dict[str, Adapted] = {}
    for name in trained_components(config, family):
        model = getattr(pipe, name)
        ranks = find_targets(config.adapter, name, model, family)
        adapted[name] = adapt(config.adapter, model, ranks)
        start_from(adapted[name], begin.get(name, {}), ranks)
        model.to(device, memory_format=_memory_format(device))
        model.train()
    if stray := begin.keys() - adapted.keys():
        raise ConfigError(
            f"The adapter to start from changes the {min(stray)}, which is not trained here.",
            "Add --train-text-encoder.",
        )
    return adapted


def total_steps(config: TrainingConfig, pictures: int, images_per_step: int) -> int:
    """Return how many optimizer steps the settings ask for; a number of steps goes first."""
    steps, epochs = config.schedule.max_train_steps, config.schedule.num_train_epochs
    if steps is not None or epochs is None:
        return steps or DEFAULT_STEPS
    return max(1, -(-epochs * pictures // images_per_step))


def _average(config: TrainingConfig, adapted: Mapping[str, Adapted]) -> Any:
    if config.adapter.ema_decay is None:
        return None
    from diffusers.training_utils import EMAModel

    parameters = [p for one in adapted.values() for p in one.parameters.values()]
    return EMAModel(parameters, decay=config.adapter.ema_decay, foreach=True)


def _memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout in which convolutions are fastest.

    A GPU's tensor cores want channels last. A CPU is no faster for it (up to a fifth slower at
    batch 1), and the reordered copy would stay beside the weights that are mapped from the file.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def _default_precision() -> str:
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "no"


def device_name(accelerator: Accelerator) -> str:
    """Return what the training runs on, for logs and cards."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"{accelerator.device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
