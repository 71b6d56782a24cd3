"""The state of a training in memory.

Over 300 lines because each of its attributes is described.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.embeddings import LearnedToken
from hublora.data.cache import CachedDataset
from hublora.families import Conditioning, Family, Parameterization
from hublora.memory.block_swap import BlockSwap
from hublora.training.assistant import Assistant
from hublora.training.bucket_sampler import BucketSampler
from hublora.training.config.training_config import TrainingConfig
from hublora.training.lora_module import LoraModule
from hublora.training.paired_difference import PairedDifference, paired_difference
from hublora.training.token_embeddings import Tokens

TOKENS = "tokens"  # name of the trainable that is not a component's adapter


class Trainable(Protocol):
    """Something that is trained: the adapter of a component, or token embeddings."""

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters by name."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of a checkpoint, by name."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the tensors of a checkpoint."""
        ...

    def without(self) -> AbstractContextManager[None]:
        """Run the base without the trained weights inside this context."""
        ...


@dataclass(frozen=True)
class SampleStream:
    """A sequence of images of which each sample of a training takes one.

    Attributes:
        images: Indices of an epoch; repeated images are listed several times.
        weight: Factor of their loss, above 0.
        seed: Seed of their random choices and noise.
        order: Sampler of batches of one shape; None without aspect buckets.
        preserves: Whether the target is the base's own prediction for the caption without its
            trigger words (`hublora.training.preservation`).
    """

    images: Sequence[int]
    weight: float
    seed: int
    order: BucketSampler | None = None
    preserves: bool = False


@dataclass(frozen=True)
class InputHashes:
    """What a training read, which a resumed one needs again.

    Attributes:
        images: Hash of the images and captions.
        base: Hash of the files of a local base; None for one at a commit of the Hub.
        each: Name of each image -> hash of its file and captions.
    """

    images: str
    base: str | None = None
    each: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass
class Session:
    """The state of one training.

    Attributes:
        config: Settings of the training.
        family: Family of the base.
        pipe: Pipeline of the base, with the adapter in its components.
        data: Encoded images and captions.
        inputs: Hashes of base, images and captions; a resumed run needs the same.
        adapted: Component -> its adapter; empty if only token embeddings are trained.
        tokens: Token embeddings; None if none are trained.
        start_step: Trainable -> step from which on it is trained; 0 if it is not listed.
        parameterization: The base model's noise and prediction, on the device.
        accelerator: Device, precision and processes.
        denoiser: The denoiser as prepared for the devices.
        optimizer: Optimizer over all trained parameters.
        schedule: Learning-rate schedule.
        streams: Training images; for prior preservation class images besides; with
            `objective.preserve` the training images once more.
        held_out_indices: Indices of the held-out images, at each of their resolutions.
        average: Moving average of the trained parameters; None without `adapter.ema_decay`.
        embedded_prompts: Text, and example whose references are seen beside it ("" for none) ->
            its conditioning, [1, …] on the CPU, of the gallery's prompts; empty where the text
            encoders stay.
        generation: Base and pipeline that images are generated with
            (`hublora.workflows.train.generation_base`); None where it is `pipe`.
        assistant: Frozen adapter that acts while this one is trained; None without one.
        swap: Swaps blocks of the denoiser with the CPU's memory; None if all are on the device.
        measures: Step and held-out loss of every measure.
        best: Trainable -> its tensors at the lowest held-out loss, on the CPU; empty before.
        best_losses: [images · timesteps] of the measure with the lowest held-out loss, float64 on
            the CPU; None before.
        last_losses: [images · timesteps] of the last measure, likewise.
        step: Optimizer steps done, from 0.
        result_step: Step whose weights are the result; None before `finalize`.
        is_over: Whether no step is left.
        is_final: Whether the weights are those of the result: see `finalize`.
    """

    config: TrainingConfig
    family: Family
    pipe: Any
    data: CachedDataset
    inputs: InputHashes
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
    embedded_prompts: Mapping[tuple[str, str], Conditioning] = field(default_factory=dict)
    generation: Any = None
    assistant: Assistant | None = None
    swap: BlockSwap | None = None
    measures: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    best_losses: torch.Tensor | None = None
    last_losses: torch.Tensor | None = None
    step: int = 0
    result_step: int | None = None
    is_over: bool = False
    is_final: bool = False

    @property
    def trainables(self) -> dict[str, Trainable]:
        """Trainables by name: the adapter of each component, then the token embeddings."""
        tokens: dict[str, Trainable] = {TOKENS: self.tokens} if self.tokens is not None else {}
        return {**self.adapted, **tokens}

    @property
    def trained(self) -> dict[str, torch.nn.Module]:
        """The components with trained parameters, unwrapped."""
        names = [*self.adapted, *(self.tokens.rows if self.tokens is not None else ())]
        return {name: getattr(self.pipe, name) for name in dict.fromkeys(names)}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """All trained parameters."""
        return [p for part in self.trainables.values() for p in part.parameters.values()]

    @property
    def frozen_parameters(self) -> list[torch.nn.Parameter]:
        """The trained parameters whose start step is not reached yet."""
        late = [name for name, step in self.start_step.items() if self.step < step]
        return [p for name in late for p in self.trainables[name].parameters.values()]

    @property
    def train_indices(self) -> Sequence[int]:
        """Indices of the training images of an epoch."""
        return self.streams[0].images

    @property
    def train_images(self) -> int:
        """Number of distinct training images."""
        return len({self.data.image_of[index] for index in self.train_indices})

    @property
    def held_out_images(self) -> int:
        """Number of held-out images."""
        return len({self.data.image_of[index] for index in self.held_out_indices})

    @property
    def images_per_step(self) -> int:
        """Effective batch size: images of an optimizer step over all processes."""
        config = self.config
        return (
            config.train_batch_size
            * config.gradient_accumulation_steps
            * self.accelerator.num_processes
        )

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps of the whole training."""
        return total_steps(self.config, len(self.train_indices), self.images_per_step)

    @property
    def best_loss(self) -> float | None:
        """The lowest held-out loss so far; None before the first measure."""
        return min((loss for _, loss in self.measures), default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the lowest held-out loss so far; None before the first measure."""
        return min(self.measures, key=lambda one: one[1])[0] if self.measures else None

    @property
    def loss_after_best(self) -> PairedDifference | None:
        """By how much the last held-out loss is above the lowest one; None where nothing was
        measured after that."""
        if self.best_losses is None or self.last_losses is None or self.best_step == self.step:
            return None
        timesteps = self.config.holdout.timesteps
        return paired_difference(self.best_losses, self.last_losses, timesteps)

    def remember_best(self) -> None:
        """Copy the weights that would be the result now, and the losses of the last measure."""
        self.best, self.best_losses = self._current_weights(), self.last_losses

    def _current_weights(self) -> dict[str, dict[str, torch.Tensor]]:
        with self.averaged():
            return {
                name: {key: tensor.cpu().clone() for key, tensor in part.state().items()}
                for name, part in self.trainables.items()
            }

    def finalize(self) -> None:
        """Load the weights of the result, after which the training is over.

        They are the last ones, averaged if they are; those of the lowest held-out loss only where
        the last loss is higher by more than the error of the measure.
        """
        rise = self.loss_after_best
        if self.config.holdout.keep_best and rise is not None and rise.is_clear:
            result, self.result_step = self.best, self.best_step
        else:
            result, self.result_step = self._current_weights(), self.step
        for name, state in result.items():
            self.trainables[name].load_state(state)
        self.is_final = True

    def adapter(self, facts: AdapterFacts | None = None) -> Adapter:
        """Return a copy of the adapter in float32 on the CPU: the averaged one, if there is one."""
        with self.averaged():
            layers = {name: adapted.read() for name, adapted in self.adapted.items()}
        return Adapter(layers, facts or AdapterFacts())

    def learned_tokens(self) -> list[LearnedToken]:
        """Return a copy of the token embeddings, the averaged ones if there are any."""
        with self.averaged():
            return self.tokens.read() if self.tokens is not None else []

    def move_denoiser(self, device: torch.device | str) -> None:
        """Move the denoiser; of one whose blocks are swapped, what is not swapped."""
        if self.swap is not None:
            self.swap.move(device)
        else:
            getattr(self.pipe, self.family.denoiser).to(device)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights, of the moving average or a schedule-free optimizer, inside this
        context; afterwards every bit is as it was."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        averages = hasattr(optimizer, "eval")
        if self.is_final or (self.average is None and not averages):
            yield
            return
        parameters = self.parameters
        saved = [parameter.detach().clone() for parameter in parameters]
        if self.average is not None:
            self.average.copy_to(parameters)
        else:
            optimizer.eval()
        try:
            yield
        finally:
            if averages:
                optimizer.train()
            torch._foreach_copy_([parameter.data for parameter in parameters], saved)

    @contextmanager
    def without_assistant(self) -> Iterator[None]:
        """Run without the assistant inside this context, as images are generated."""
        with self.assistant.off() if self.assistant is not None else nullcontext():
            yield

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        """Run the base alone inside this context; token embeddings have their initial values."""
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
