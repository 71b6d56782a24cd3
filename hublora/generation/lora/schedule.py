"""Lets several adapters act together while a pipeline draws.

    way        at each step                                      source
    sum        all act at once: the exact weighted sum           LoRA, arXiv 2106.09685, eq. 3
    switch     one acts, the next at the next step               arXiv 2402.16843, section 3.1
    composite  each acts alone; their guided predictions are     arXiv 2402.16843, section 3.2
               averaged

Classifier-free guidance is linear in the denoiser's predictions, so averaging these is averaging
what is guided. Text encoders read the prompt once, before the first step: there every way is a sum.
Adapters stay in memory; what does not act costs nothing (`hublora.generation.lora.component`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.weights import CompositionMode, Weight, in_block

if TYPE_CHECKING:
    from hublora.generation.lora.manager import FittedAdapter, LoraManager


class AdapterSchedule:
    """Which adapters of a pipeline act at which step, and how strongly.

    Args:
        bank: Of the pipeline.
        denoiser: The component that predicts.

    Attributes:
        parts: What acts, in order.
    """

    def __init__(self, bank: LoraManager, denoiser: Any) -> None:
        self._bank, self._denoiser = bank, denoiser
        self._way: CompositionMode = "sum"
        self.parts: tuple[FittedAdapter, ...] = ()
        self._weights: tuple[Weight, ...] = ()
        self._layered: list[int] = []  # what of `parts` changes anything
        self._averages = False
        self._progress = 0.0

    @property
    def name(self) -> str:
        """Of the PEFT adapter that holds what acts."""
        return self._bank.name

    def play(
        self,
        parts: Sequence[FittedAdapter],
        weights: Sequence[Weight],
        way: CompositionMode = "sum",
    ) -> None:
        """Let these adapters act from now on, and no others.

        Args:
            parts: What the bank prepared; one may come twice.
            weights: One for each.
            way: How they act together.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in; what acted
                before still does.
        """
        for part, weight in zip(parts, weights, strict=True):
            _check_blocks(weight, part)
        self.parts, self._weights = tuple(parts), tuple(weights)
        self._layered = [index for index, part in enumerate(parts) if part.stacks]
        self._way = way if len(self._layered) > 1 else "sum"
        self._still = self._way != "switch" and not any(weight.moves for weight in weights)
        if self._way == "composite" and not self._averages:
            self._average()
        self._hold()
        self._begin()

    def reweigh(self, weights: Sequence[Weight]) -> None:
        """Let the same adapters act with other weights from now on.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in.
        """
        self.play(self.parts, weights, self._way)

    def start(self) -> None:
        """Set everything as the first step needs it, whatever an interrupted drawing left."""
        if not self._still:
            self._begin()

    def _hold(self) -> None:
        acting = [part for part, one in zip(self.parts, self._weights, strict=True) if one.acts]
        for component in {name for part in acting for name in part.stacks}:
            self._bank.rack(component)
        for component, rack in self._bank.racks.items():
            stacks = [part.stacks[component] for part in acting if component in part.stacks]
            rack.hold(stacks, self._way == "sum" or _reads_text(component))

    def _begin(self) -> None:
        for component in self._bank.racks:
            if _reads_text(component):
                self._show(component, None, 0.0)
        self._progress = 0.0
        self._show_denoiser(self._turn(0))

    def on_step_end(
        self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        """Set everything as the next step needs it: a pipeline's `callback_on_step_end`."""
        if self._still:
            return tensors
        following = step + 1
        if following >= pipe.num_timesteps:
            self._begin()  # the next image starts as this one did
            return tensors
        self._progress = following / max(pipe.num_timesteps - 1, 1)
        self._show_denoiser(self._turn(following))
        return tensors

    def _turn(self, step: int) -> int | None:
        """Return which adapter acts alone at a step, None where all do."""
        if self._way == "switch":
            return self._layered[step % len(self._layered)]
        return self._layered[0] if self._way == "composite" else None

    def _show_denoiser(self, alone: int | None) -> None:
        for component in self._bank.racks:
            if not _reads_text(component):
                self._show(component, alone, self._progress)

    def _show(self, component: str, alone: int | None, progress: float) -> None:
        acting = []
        for index, (part, weight) in enumerate(zip(self.parts, self._weights, strict=True)):
            if component in part.stacks and alone in (None, index):
                stack = part.stacks[component]
                acting.append((stack, _factors(weight, component, stack.modules, progress)))
        self._bank.rack(component).show(acting)

    def _average(self) -> None:
        """Make the denoiser predict with each adapter alone and return the mean, where that is
        the way."""
        predict = self._denoiser.forward
        self._averages = True

        @functools.wraps(predict)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._way != "composite":
                return predict(*args, **kwargs)
            results = []
            for index in self._layered:
                self._show_denoiser(index)
                results.append(predict(*args, **kwargs))
            if isinstance(results[0], tuple):
                return (_mean([result[0] for result in results]), *results[0][1:])
            return type(results[0])(sample=_mean([result.sample for result in results]))

        self._denoiser.forward = forward


def _reads_text(component: str) -> bool:
    return component.startswith("text_encoder")


def _factors(
    weight: Weight, component: str, modules: Sequence[str], progress: float
) -> float | list[float]:
    """Return the weight of a component's layers, one number where it is one."""
    if not weight.blocks:
        return weight.rest.at(progress)
    return [weight.for_layer(component, module).at(progress) for module in modules]


def _check_blocks(weight: Weight, part: FittedAdapter) -> None:
    layers = [(name, module) for name, stack in part.stacks.items() for module in stack.modules]
    for block, _ in weight.blocks:
        if not any(in_block(block, *layer) for layer in layers):
            there = sorted({_block_of(*layer) for layer in layers})
            raise ConfigError(
                f"The adapter changes nothing in the block {block!r}.",
                f"It changes: {', '.join(there)}.",
            )


def _block_of(component: str, module: str) -> str:
    """Return the name of a layer's block as a weight writes it."""
    if _reads_text(component):
        return "text"
    first, second = [*module.split("."), ""][:2]
    if first in ("down_blocks", "up_blocks"):
        return f"{first.removesuffix('_blocks')}.{second}"
    return "mid" if first == "mid_block" else f"{first}.{second}" if second.isdigit() else first


def _mean(tensors: Sequence[Any]) -> Any:
    return functools.reduce(lambda one, other: one + other, tensors) / len(tensors)
