"""Activates several adapters together while a pipeline generates.

    mode       at each step                                      source
    sum        all act at once: the exact weighted sum           LoRA, arXiv 2106.09685, eq. 3
    switch     one acts, the next at the next step               arXiv 2402.16843, section 3.1
    composite  each acts alone; their guided predictions are     arXiv 2402.16843, section 3.2
               averaged

Classifier-free guidance is linear in the denoiser's predictions, so averaging these is averaging
what is guided. Text encoders read the prompt once, before the first step: every mode is a sum
there. Inactive adapters stay in memory and cost nothing (`hublora.generation.lora.component`).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hublora.adapter_weights import CompositionMode, Weight, in_block
from hublora.errors import ConfigError
from hublora.families.registry import family_of_pipeline, find_block
from hublora.generation.lora.step_counter import StepCounter

if TYPE_CHECKING:
    from hublora.generation.lora.manager import FittedAdapter, LoraManager


class AdapterSchedule:
    """Which adapters of a pipeline are active at which step, and how strongly.

    It acts by itself: each call of the denoiser first activates what its timestep needs.

    Args:
        manager: Buffers of the pipeline.
        denoiser: The component that predicts, a torch module.

    Attributes:
        adapters: The active adapters, in order.
        moves: Whether the active adapters or their weights depend on the step.
    """

    def __init__(self, manager: LoraManager, denoiser: Any) -> None:
        self._manager, self._denoiser = manager, denoiser
        self._asked: CompositionMode = "sum"
        self._mode: CompositionMode = "sum"  # as asked, if several adapters act
        self.adapters: tuple[FittedAdapter, ...] = ()
        self._weights: tuple[Weight, ...] = ()
        self._layered: list[int] = []  # indices of the adapters that have layers and act
        self.moves = False
        self._counter = StepCounter(family_of_pipeline(manager.pipe).scheduler_timestep)
        self._step: int | None = None  # that the denoiser's buffers are set for
        self._progress = 0.0
        self._averages = False
        self._changes = 0
        self._changed_by = threading.get_ident()
        self._image: tuple[Any, int] | None = None  # its timesteps, and the changes before it
        if isinstance(denoiser, torch.nn.Module):
            self._denoiser = getattr(denoiser, "_orig_mod", denoiser)  # torch.compile wraps it
            self._denoiser.register_forward_pre_hook(_BeforeCall(self), with_kwargs=True)

    @property
    def pipe(self) -> Any:
        """The pipeline."""
        return self._manager.pipe

    @property
    def name(self) -> str:
        """Name of the PEFT adapter."""
        return self._manager.name

    def activate(
        self,
        adapters: Sequence[FittedAdapter],
        weights: Sequence[Weight],
        mode: CompositionMode = "sum",
    ) -> None:
        """Activate these adapters, and no others.

        Args:
            adapters: Fitted by the manager; one may come twice.
            weights: One for each.
            mode: How they act together.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in; the adapters
                that were active still are, as after any other exception.
        """
        for adapter, weight in zip(adapters, weights, strict=True):
            _check_blocks(weight, adapter)
        before = self.adapters, self._weights, self._asked
        try:
            self._set(adapters, weights, mode)
        except BaseException:
            with contextlib.suppress(Exception):  # the first one tells what is wrong
                self._set(*before)
            raise

    def _set(
        self, adapters: Sequence[FittedAdapter], weights: Sequence[Weight], mode: CompositionMode
    ) -> None:
        self.adapters, self._weights = tuple(adapters), tuple(weights)
        pairs = enumerate(zip(adapters, weights, strict=True))
        self._layered = [i for i, (adapter, weight) in pairs if adapter.packed and weight.acts]
        self._asked, self._mode = mode, mode if len(self._layered) > 1 else "sum"
        self.moves = self._mode == "switch" or any(weight.moves for weight in weights)
        if self._mode == "composite" and not self._averages:
            self._average()
        self._changes, self._changed_by = self._changes + 1, threading.get_ident()
        self._reserve()
        self._step, self._progress = None, 0.0
        for component in self._manager.components:
            if reads_text(component):
                self._activate(component, None, 0.0)
        self._activate_denoiser(self._turn(0))

    def set_weights(self, weights: Sequence[Weight]) -> None:
        """Give the active adapters other weights.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in.
        """
        self.activate(self.adapters, weights, self._asked)

    def check_unchanged(self) -> None:
        """Check that no other thread has changed the adapters since the current image began.

        Raises:
            ConfigError: One has; the image would be of two adapters.
        """
        timesteps = getattr(self.pipe.scheduler, "timesteps", None)
        if self._image is None or self._image[0] is not timesteps:
            self._image = timesteps, self._changes
        if self._image[1] != self._changes and self._changed_by != threading.get_ident():
            raise ConfigError(
                "Another thread has changed the adapters of this pipeline during a call.",
                "Call it in `with hublora.using(pipe, …):`, which holds them until the end.",
            )

    @torch.compiler.disable
    def set_step(self, timestep: Any) -> None:
        """Activate what the denoiser needs at a timestep, if it is not active yet.

        Raises:
            ConfigError: The timestep is not one of the pipeline's scheduler.
        """
        step, steps = self._counter.step(self.pipe.scheduler, timestep)
        self._progress = step / max(steps - 1, 1)
        if step != self._step and self._mode != "composite":
            self._step = None  # if what follows is interrupted
            self._activate_denoiser(self._turn(step))
        self._step = step

    def _average(self) -> None:
        """Make the denoiser return the mean of its predictions with each adapter alone, in the
        mode "composite"."""
        predict = self._denoiser.forward
        self._averages = True

        @functools.wraps(predict)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._mode != "composite":
                return predict(*args, **kwargs)
            results = []
            for index in self._layered:
                self._activate_denoiser(index)
                results.append(predict(*args, **kwargs))
            return mean_prediction(results)

        self._denoiser.forward = forward

    def _reserve(self) -> None:
        pairs = zip(self.adapters, self._weights, strict=True)
        active = [adapter.packed for adapter, weight in pairs if weight.acts]
        for component in {name for packed in active for name in packed}:
            self._manager.component(component)
        for component, lora in self._manager.components.items():
            together = self._mode == "sum" or reads_text(component)
            lora.reserve([one[component] for one in active if component in one], together)

    def _turn(self, step: int) -> int | None:
        """Return the index of the only active adapter at a step, None where all are."""
        if self._mode == "switch":
            return self._layered[step % len(self._layered)]
        return self._layered[0] if self._mode == "composite" else None

    def _activate_denoiser(self, alone: int | None) -> None:
        for component in self._manager.components:
            if not reads_text(component):
                self._activate(component, alone, self._progress)

    def _activate(self, component: str, alone: int | None, progress: float) -> None:
        active = []
        for index, (adapter, weight) in enumerate(zip(self.adapters, self._weights, strict=True)):
            if component in adapter.packed and alone in (None, index):
                packed = adapter.packed[component]
                active.append((packed, layer_factors(weight, component, packed.layers, progress)))
        self._manager.component(component).activate(active)


class _BeforeCall:
    """Hook that lets a denoiser's schedule set the step; a copy of the denoiser alone has none."""

    def __init__(self, adapter_schedule: AdapterSchedule | None = None) -> None:
        self.adapter_schedule = adapter_schedule

    def __call__(self, _: torch.nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if self.adapter_schedule is None:
            return
        if not torch.compiler.is_compiling():  # a check would cut what is compiled in two
            self.adapter_schedule.check_unchanged()
        if self.adapter_schedule.moves:
            self.adapter_schedule.set_step(kwargs["timestep"] if "timestep" in kwargs else args[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> _BeforeCall:
        whole = self.adapter_schedule is not None and id(self.adapter_schedule.pipe) in memo
        return _BeforeCall(copy.deepcopy(self.adapter_schedule, memo) if whole else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _BeforeCall, ()


def pipeline_of(denoiser: Any) -> Any | None:
    """Return the pipeline that `load` returned with this denoiser; None if it is not from there.

    Pipelines that diffusers' `from_pipe` makes of it have the same denoiser.
    """
    module = getattr(denoiser, "_orig_mod", denoiser)
    for hook in getattr(module, "_forward_pre_hooks", {}).values():
        if isinstance(hook, _BeforeCall) and hook.adapter_schedule is not None:
            return hook.adapter_schedule.pipe
    return None


def reads_text(component: str) -> bool:
    """Tell whether a component encodes prompts."""
    return component.startswith("text_encoder")


def layer_factors(
    weight: Weight, component: str, modules: Sequence[str], progress: float
) -> float | list[float]:
    """Return the weight of a component's layers, one number where it is one."""
    if not weight.blocks:
        return weight.rest.at(progress)
    return [weight.for_layer(component, module).at(progress) for module in modules]


def _check_blocks(weight: Weight, adapter: FittedAdapter) -> None:
    layers = [(name, module) for name, packed in adapter.packed.items() for module in packed.layers]
    for block, _ in weight.blocks:
        if not any(in_block(block, *layer) for layer in layers):
            there = sorted({_block_of(*layer) for layer in layers})
            raise ConfigError(
                f"The adapter changes nothing in the block {block!r}.",
                f"It changes: {', '.join(there)}.",
            )


def _block_of(component: str, module: str) -> str:
    """Return the name of a layer's block as a weight writes it."""
    if reads_text(component):
        return "text"
    if found := find_block(module):
        return found[0]
    first, second = [*module.split("."), ""][:2]
    return f"{first}.{second}" if second.isdigit() else first


def mean_prediction(results: Sequence[Any]) -> Any:
    """Return the mean of what a denoiser returned, called with each adapter alone."""
    if isinstance(results[0], tuple):
        return (_mean([result[0] for result in results]), *results[0][1:])
    return type(results[0])(sample=_mean([result.sample for result in results]))


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], list):  # one tensor for each sample
        return [_mean(samples) for samples in zip(*values, strict=True)]
    return functools.reduce(lambda one, other: one + other, values) / len(values)
