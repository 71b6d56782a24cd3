"""Everything that a training holds in memory, put together once before the first step."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from hublora.adapters.adapter import Adapter, AdapterFacts, LowRank
from hublora.adapters.embeddings import LearnedToken
from hublora.data.cache import TrainingData
from hublora.errors import ConfigError
from hublora.families import Diffusion, Family
from hublora.training.adapting import Adapted, adapt, start_from
from hublora.training.config import TrainingConfig
from hublora.training.methods import method_of
from hublora.training.optimizers import (
    check_optimizer,
    make_optimizer,
    make_schedule,
    parameter_groups,
    token_group,
)
from hublora.training.order import BucketOrder
from hublora.training.randomness import derived_seed, split
from hublora.training.targets import find_targets, trained_components
from hublora.training.tokens import Tokens, add_tokens, check_tokens
from hublora.training.trackers import FOLDER, choose_trackers

DEFAULT_STEPS = 1000
TOKENS = "tokens"  # the part of a training that is not a component's adapter
_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Part(Protocol):
    """Something that learns: the adapter on a component, or new words."""

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that a resumed training needs of it, by name."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up where `state` was."""
        ...

    def without(self) -> AbstractContextManager[None]:
        """Let the base be as it was without it."""
        ...


@dataclass(frozen=True)
class Stream:
    """Pictures of which each sample of a training shows one.

    Attributes:
        pictures: Which ones in one pass, repeated ones several times.
        weight: Of their loss.
        seed: Of what is random about them.
        order: In which order they are shown where batches are of one shape; None otherwise.
    """

    pictures: Sequence[int]
    weight: float
    seed: int
    order: BucketOrder | None = None


@dataclass
class Session:
    """The parts of one training.

    Attributes:
        config: Its settings.
        family: Of the base.
        pipe: The base; its denoiser (and text encoder, if asked) carries the adapter.
        data: Encoded pictures and captions.
        data_fingerprint: Identity of the pictures and captions; a resumed run needs the same.
        adapted: Component -> it with the adapter; empty if only words are learned.
        tokens: The new words, None without any.
        begins: Part -> after how many steps it begins to learn; at once if it is not named.
        diffusion: The base's noising process, on the device.
        accelerator: Device, precision and processes.
        denoiser: The denoiser as prepared for the devices.
        optimizer: Over everything that is trained.
        schedule: Of the learning rate.
        streams: What each sample shows: a picture to learn from, and for prior preservation one
            of the class besides.
        held_out: Which pictures are kept apart for measuring.
        average: Moving average of what is trained, None without one.
        measures: Step and loss of every measure on the held-out pictures.
        best: State of each part when the whole measured best; empty before.
        step: Optimizer steps done.
        is_over: Whether there is nothing more to train.
        is_settled: Whether the weights are those to be used: see `settle`.
    """

    config: TrainingConfig
    family: Family
    pipe: Any
    data: TrainingData
    data_fingerprint: str
    adapted: dict[str, Adapted]
    tokens: Tokens | None
    begins: Mapping[str, int]
    diffusion: Diffusion
    accelerator: Accelerator
    denoiser: torch.nn.Module
    optimizer: Any
    schedule: Any
    streams: tuple[Stream, ...]
    held_out: list[int]
    average: Any = None
    measures: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    step: int = 0
    is_over: bool = False
    is_settled: bool = False

    @property
    def parts(self) -> dict[str, Part]:
        """Everything that learns: the adapter of each component, then the new words."""
        words: dict[str, Part] = {TOKENS: self.tokens} if self.tokens is not None else {}
        return {**self.adapted, **words}

    @property
    def trained(self) -> dict[str, torch.nn.Module]:
        """The components in which something learns, unwrapped."""
        names = [*self.adapted, *(self.tokens.rows if self.tokens is not None else ())]
        return {name: getattr(self.pipe, name) for name in dict.fromkeys(names)}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The weights that are trained, as a list: an iterator would be spent once."""
        return [p for part in self.parts.values() for p in part.parameters.values()]

    @property
    def waiting(self) -> list[torch.nn.Parameter]:
        """Those of them that do not learn yet."""
        late = [name for name, step in self.begins.items() if self.step < step]
        return [p for name in late for p in self.parts[name].parameters.values()]

    @property
    def shown(self) -> Sequence[int]:
        """Which pictures are learned from."""
        return self.streams[0].pictures

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
        """Keep a copy of what people would use now."""
        with self.averaged():
            self.best = {
                name: {key: tensor.cpu().clone() for key, tensor in part.state().items()}
                for name, part in self.parts.items()
            }

    def settle(self) -> None:
        """Make the weights that are to be used those that are there; the training is over.

        They are those that measured best, else the averaged ones, else the last ones.
        """
        if not (self.config.holdout.keep_best and self.best):
            self.remember_best()
        for name, state in self.best.items():
            self.parts[name].load_state(state)
        self.is_settled = True

    def adapter(self, facts: AdapterFacts | None = None) -> Adapter:
        """Return a copy of the adapter that people use now, in float32 on the CPU: the averaged
        one where there is an average."""
        with self.averaged():
            layers = {name: adapted.read() for name, adapted in self.adapted.items()}
        return Adapter(layers, facts or AdapterFacts())

    def learned_tokens(self) -> list[LearnedToken]:
        """Return a copy of the new words as people use them now; none if none are learned."""
        with self.averaged():
            return self.tokens.read() if self.tokens is not None else []

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
        """Let the pipeline be that of the base; new words mean what they did at first."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.without())
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
        ConfigError: A target matches no layer of the base, a new word is none, or a package is
            missing.
    """
    check_optimizer(config.optimizer)
    if method_of(config).trains_tokens:
        check_tokens(config.tokens, family, pipe)
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
    class_pictures: int = 0,
) -> Session:
    """Put what the method trains on the base, untrained, and make optimizer and schedule.

    Args:
        config: The settings.
        family: Of the base.
        pipe: The base.
        data: Encoded pictures and captions.
        data_fingerprint: Identity of the pictures and captions.
        accelerator: Device, precision and processes.
        begin: Component -> layer, as the base names it -> update to start from.
        class_pictures: How many of `data`, at its end, are of the class and not to be learned.

    Raises:
        ConfigError: `begin` does not fit what is trained, or no picture is left to train on.
    """
    set_seed(config.seed)
    adapted = _adapt_all(config, family, pipe, accelerator.device, begin or {})
    tokens = _teach(config, family, pipe, accelerator.device)
    denoiser = _bring(getattr(pipe, family.denoiser), accelerator.device)
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    streams, held_out = _streams(config, data, class_pictures)
    images = config.train_batch_size * config.gradient_accumulation_steps
    steps = total_steps(config, len(streams[0].pictures), images * accelerator.num_processes)
    method = method_of(config)
    begins = dict.fromkeys(adapted, method.adapter_begins(config, steps))
    groups = parameter_groups(config.optimizer, adapted, family.denoiser)
    starts = [method.adapter_begins(config, steps)] * len(groups)
    if tokens is not None:
        groups += token_group(tokens.parameters.values(), method.token_rate(config))
        starts.append(0)
    optimizer = make_optimizer(config, groups, accelerator.device)
    diffusion = family.diffusion(pipe)
    return Session(
        config=config,
        family=family,
        pipe=pipe,
        data=data,
        data_fingerprint=data_fingerprint,
        adapted=adapted,
        tokens=tokens,
        begins=begins,
        diffusion=Diffusion(diffusion.prediction, diffusion.alphas_cumprod.to(accelerator.device)),
        accelerator=accelerator,
        # Without anything that learns in it, there is nothing for several processes to share.
        denoiser=accelerator.prepare(denoiser) if family.denoiser in adapted else denoiser,
        optimizer=accelerator.prepare(optimizer),
        schedule=make_schedule(config.schedule, optimizer, steps, starts),
        streams=streams,
        held_out=held_out,
        average=_average(config, [p for group in groups for p in group["params"]]),
    )


def split_pictures(config: TrainingConfig, count: int) -> tuple[list[int], list[int]]:
    """Return which of `count` pictures are trained on, and which are kept apart.

    Raises:
        ConfigError: None is left to train on.
    """
    shown, held_out = split(config.seed, count, config.holdout.pictures)
    if not shown:
        pictures = "only picture" if count == 1 else f"{count} pictures"
        raise ConfigError(
            f"holdout.pictures keeps the {pictures} apart, and none is left to train on.",
            "Keep fewer apart, or leave it out.",
        )
    return shown, held_out


def _streams(
    config: TrainingConfig, data: TrainingData, class_pictures: int
) -> tuple[tuple[Stream, ...], list[int]]:
    """Return what each sample shows, and which pictures are kept apart."""
    own = len(data) - class_pictures
    shown, held_out = split_pictures(config, own)
    shown = [index for index in shown for _ in range(data.repeats[index])]
    streams = [_stream(config, data, shown, 1.0, config.seed)]
    if class_pictures:
        seed, weight = derived_seed(config.seed, "class"), config.dreambooth.prior_weight
        streams.append(_stream(config, data, range(own, len(data)), weight, seed))
    return tuple(streams), held_out


def _stream(
    config: TrainingConfig, data: TrainingData, pictures: Sequence[int], weight: float, seed: int
) -> Stream:
    if not config.data.aspect_buckets:
        return Stream(pictures, weight, seed)
    buckets: list[list[int]] = [[] for _ in data.bucket_sizes]
    for index in pictures:
        buckets[data.bucket_of[index]].append(index)
    size = config.data.bucket_batch or config.train_batch_size
    return Stream(pictures, weight, seed, BucketOrder(seed, buckets, size))


def _adapt_all(
    config: TrainingConfig,
    family: Family,
    pipe: Any,
    device: torch.device,
    begin: Mapping[str, Mapping[str, LowRank]],
) -> dict[str, Adapted]:
    """Put the adapter on every component that it changes, and bring those to the device."""
    for name in (family.denoiser, *family.text_encoders):
        getattr(pipe, name).requires_grad_(False)
    adapted: dict[str, Adapted] = {}
    for name in trained_components(config, family):
        model = getattr(pipe, name)
        ranks = find_targets(config.adapter, name, model, family)
        adapted[name] = adapt(config.adapter, model, ranks)
        start_from(adapted[name], begin.get(name, {}), ranks)
        _bring(model, device)
    if stray := begin.keys() - adapted.keys():
        raise ConfigError(
            f"The adapter to start from changes the {min(stray)}, which is not trained here.",
            "Add --train-text-encoder.",
        )
    return adapted


def _teach(
    config: TrainingConfig, family: Family, pipe: Any, device: torch.device
) -> Tokens | None:
    """Add the new words, if the method learns any, and bring the text encoders to the device."""
    if not method_of(config).trains_tokens:
        return None
    tokens = add_tokens(config.tokens, family, pipe, config.seed)
    for name in family.text_encoders:
        _bring(getattr(pipe, name), device)
    return tokens


def _bring(model: Any, device: torch.device) -> Any:
    """Return a component on the device, as training needs it."""
    model.to(device, memory_format=_memory_format(device))
    return model.train()


def total_steps(config: TrainingConfig, pictures: int, images_per_step: int) -> int:
    """Return how many optimizer steps the settings ask for; a number of steps goes first."""
    steps, epochs = config.schedule.max_train_steps, config.schedule.num_train_epochs
    if steps is not None or epochs is None:
        return steps or DEFAULT_STEPS
    return max(1, -(-epochs * pictures // images_per_step))


def _average(config: TrainingConfig, parameters: Sequence[torch.nn.Parameter]) -> Any:
    if config.adapter.ema_decay is None:
        return None
    from diffusers.training_utils import EMAModel

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
