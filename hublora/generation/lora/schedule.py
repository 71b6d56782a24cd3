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

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.families.registry import find_block
from hublora.weights import CompositionMode, Weight, in_block

if TYPE_CHECKING:
    from hublora.generation.lora.manager import FittedAdapter, LoraManager


class AdapterSchedule:
    """Which adapters of a pipeline act at which step, and how strongly.

    Args:
        manager: Of the pipeline.
        denoiser: The component that predicts.

    Attributes:
        parts: What acts, in order.
    """

    def __init__(self, manager: LoraManager, denoiser: Any) -> None:
        self._manager, self._denoiser = manager, denoiser
        self._mode: CompositionMode = "sum"
        self.adapters: tuple[FittedAdapter, ...] = ()
        self._weights: tuple[Weight, ...] = ()
        self._layered: list[int] = []  # what of `parts` changes anything
        self._averages = False
        self._progress = 0.0

    @property
    def name(self) -> str:
        """Of the PEFT adapter that holds what acts."""
        return self._manager.name

    def activate(
        self,
        adapters: Sequence[FittedAdapter],
        weights: Sequence[Weight],
        mode: CompositionMode = "sum",
    ) -> None:
        """Let these adapters act from now on, and no others.

        Args:
            parts: What the manager fitted; one may come twice.
            weights: One for each.
            mode: How they act together.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in; what acted
                before still does.
        """
        for adapter, weight in zip(adapters, weights, strict=True):
            _check_blocks(weight, adapter)
        self.adapters, self._weights = tuple(adapters), tuple(weights)
        self._layered = [index for index, adapter in enumerate(adapters) if adapter.packed]
        self._mode = mode if len(self._layered) > 1 else "sum"
        self._still = self._mode != "switch" and not any(weight.moves for weight in weights)
        if self._mode == "composite" and not self._averages:
            self._average()
        self._reserve()
        self._restart()

    def set_weights(self, weights: Sequence[Weight]) -> None:
        """Let the same adapters act with other weights from now on.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in.
        """
        self.activate(self.adapters, weights, self._mode)

    def start(self) -> None:
        """Set everything as the first step needs it, whatever an interrupted drawing left."""
        if not self._still:
            self._restart()

    def _reserve(self) -> None:
        active = [
            adapter for adapter, one in zip(self.adapters, self._weights, strict=True) if one.acts
        ]
        for component in {name for adapter in active for name in adapter.packed}:
            self._manager.component(component)
        for component, lora in self._manager.components.items():
            adapters = [
                adapter.packed[component] for adapter in active if component in adapter.packed
            ]
            lora.reserve(adapters, self._mode == "sum" or _reads_text(component))

    def _restart(self) -> None:
        for component in self._manager.components:
            if _reads_text(component):
                self._activate(component, None, 0.0)
        self._progress = 0.0
        self._activate_denoiser(self._turn(0))

    def on_step_end(
        self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        """Set everything as the next step needs it: a pipeline's `callback_on_step_end`."""
        if self._still:
            return tensors
        following = step + 1
        if following >= pipe.num_timesteps:
            self._restart()  # the next image starts as this one did
            return tensors
        self._progress = following / max(pipe.num_timesteps - 1, 1)
        self._activate_denoiser(self._turn(following))
        return tensors

    def _turn(self, step: int) -> int | None:
        """Return which adapter acts alone at a step, None where all do."""
        if self._mode == "switch":
            return self._layered[step % len(self._layered)]
        return self._layered[0] if self._mode == "composite" else None

    def _activate_denoiser(self, alone: int | None) -> None:
        for component in self._manager.components:
            if not _reads_text(component):
                self._activate(component, alone, self._progress)

    def _activate(self, component: str, alone: int | None, progress: float) -> None:
        active = []
        for index, (adapter, weight) in enumerate(zip(self.adapters, self._weights, strict=True)):
            if component in adapter.packed and alone in (None, index):
                packed = adapter.packed[component]
                active.append((packed, _factors(weight, component, packed.layers, progress)))
        self._manager.component(component).activate(active)

    def _average(self) -> None:
        """Make the denoiser predict with each adapter alone and return the mean, where that is
        the mode."""
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
    if _reads_text(component):
        return "text"
    if found := find_block(module):
        return found[0]
    first, second = [*module.split("."), ""][:2]
    return f"{first}.{second}" if second.isdigit() else first


def _mean(tensors: Sequence[Any]) -> Any:
    return functools.reduce(lambda one, other: one + other, tensors) / len(tensors)
