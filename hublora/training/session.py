"""Everything that a training holds in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.embeddings import LearnedToken
from hublora.data.cache import CachedDataset
from hublora.families import Family, Parameterization
from hublora.training.bucket_sampler import BucketSampler
from hublora.training.config.training_config import TrainingConfig
from hublora.training.lora_module import LoraModule
from hublora.training.token_embeddings import Tokens

TOKENS = "tokens"  # the part of a training that is not a component's adapter


class Trainable(Protocol):
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
class SampleStream:
    """Images of which each sample of a training shows one.

    Attributes:
        images: Indices of the images of one epoch, repeated ones several times.
        weight: Weight of the stream's loss.
        seed: Seed of the stream's random choices.
        order: In which order they are shown where batches are of one shape; None otherwise.
    """

    images: Sequence[int]
    weight: float
    seed: int
    order: BucketSampler | None = None


@dataclass
class Session:
    """The parts of one training.

    Attributes:
        config: Settings of the training.
        family: Family of the base model.
        pipe: The base; its denoiser (and text encoder, if asked) carries the adapter.
        data: Encoded images and captions.
        data_fingerprint: Identity of the images and captions; a resumed run needs the same.
        adapted: Component -> it with the adapter; empty if only words are learned.
        tokens: The new words, None without any.
        start_step: Part -> after how many steps it begins to learn; at once if it is not named.
        parameterization: The base model's noise and prediction, on the device.
        accelerator: Device, precision and processes.
        denoiser: The denoiser as prepared for the devices.
        optimizer: Over everything that is trained.
        schedule: Learning rate schedule.
        streams: Streams of samples: images to learn, and for prior preservation one
            of the class besides.
        held_out_indices: Indices of the images that are held out for validation.
        average: Moving average of what is trained, None without one.
        measures: Step and loss of every measure on the held-out images.
        best: State of each part when the whole measured best; empty before.
        step: Optimizer steps done.
        is_over: Whether there is nothing more to train.
        is_final: Whether the weights are those to be used: see `finalize`.
    """

    config: TrainingConfig
    family: Family
    pipe: Any
    data: CachedDataset
    data_fingerprint: str
    adapted: dict[str, LoraModule]
    tokens: Tokens | None
    start_step: Mapping[str, int]
    parameterization: Parameterization
    accelerator: Accelerator
    denoiser: torch.nn.Module
    optimizer: Any
    schedule: Any
    streams: tuple[SampleStream, ...]
    held_out_indices: list[int]
    average: Any = None
    measures: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    step: int = 0
    is_over: bool = False
    is_final: bool = False

    @property
    def trainables(self) -> dict[str, Trainable]:
        """Everything that learns: the adapter of each component, then the new words."""
        words: dict[str, Trainable] = {TOKENS: self.tokens} if self.tokens is not None else {}
        return {**self.adapted, **words}

    @property
    def trained(self) -> dict[str, torch.nn.Module]:
        """The components in which something learns, unwrapped."""
        names = [*self.adapted, *(self.tokens.rows if self.tokens is not None else ())]
        return {name: getattr(self.pipe, name) for name in dict.fromkeys(names)}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The weights that are trained, as a list: an iterator would be spent once."""
        return [p for part in self.trainables.values() for p in part.parameters.values()]

    @property
    def frozen_parameters(self) -> list[torch.nn.Parameter]:
        """Those of them that do not learn yet."""
        late = [name for name, step in self.start_step.items() if self.step < step]
        return [p for name in late for p in self.trainables[name].parameters.values()]

    @property
    def train_indices(self) -> Sequence[int]:
        """Which images are learned from."""
        return self.streams[0].images

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
        return total_steps(self.config, len(self.train_indices), self.images_per_step)

    @property
    def best_loss(self) -> float | None:
        """The lowest measure so far, None before the first one."""
        return min((loss for _, loss in self.measures), default=None)

    def remember_best(self) -> None:
        """Keep a copy of what people would use now."""
        with self.averaged():
            self.best = {
                name: {key: tensor.cpu().clone() for key, tensor in part.state().items()}
                for name, part in self.trainables.items()
            }

    def finalize(self) -> None:
        """Make the weights that are to be used those that are there; the training is over.

        They are those that measured best, else the averaged ones, else the last ones.
        """
        if not (self.config.holdout.keep_best and self.best):
            self.remember_best()
        for name, state in self.best.items():
            self.trainables[name].load_state(state)
        self.is_final = True

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
        if self.is_final or (self.average is None and not averages):
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
            for part in self.trainables.values():
                stack.enter_context(part.without())
            yield


def total_steps(config: TrainingConfig, images: int, images_per_step: int) -> int:
    """Return the number of optimizer steps: `max_train_steps`, else that of `num_train_epochs`.

    Args:
        config: Settings whose schedule has at least one of the two.
        images: Images of one epoch, repeats included.
        images_per_step: Effective batch size.
    """
    steps, epochs = config.schedule.max_train_steps, config.schedule.num_train_epochs
    if steps is not None:
        return steps
    assert epochs is not None, "training.config.resolve gives a number of steps without epochs"
    return max(1, -(-epochs * images // images_per_step))
