"""Lets several adapters act together while a pipeline draws.

    way        at each step                                      source
    sum        all act at once: the exact weighted sum           LoRA, arXiv 2106.09685, eq. 3
    switch     one acts, the next at the next step               arXiv 2402.16843, section 3.1
    composite  each acts alone; their guided predictions are     arXiv 2402.16843, section 3.2
               averaged

Classifier-free guidance is linear in the denoiser's predictions, so averaging these is averaging
what is guided. Text encoders read the prompt once, before the first step: there every way is a sum.
Adapters stay in memory; what does not act costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hublora.errors import ConfigError
from hublora.generation.weights import Weight, in_block

Way = Literal["sum", "switch", "composite"]
WAYS: tuple[Way, ...] = ("sum", "switch", "composite")


@dataclass(frozen=True)
class _Placed:
    """A layer of the pipeline that carries adapters.

    Attributes:
        layer: PEFT's layer.
        component: Of the pipeline.
        module: Its name in the component.
        names: The adapters on it, of those that are mixed.
    """

    layer: Any
    component: str
    module: str
    names: tuple[str, ...]

    @property
    def reads_text(self) -> bool:
        return self.component.startswith("text_encoder")


class Mixer:
    """Which adapters of a pipeline act at which step, and how strongly.

    Args:
        pipe: A diffusers pipeline that has the adapters.
        names: What they are called in the pipeline.
        weights: One for each.
        way: How they act together.
        denoiser: The component that predicts.

    Raises:
        ConfigError: A weight names a block that its adapter has no layers in.
    """

    def __init__(
        self,
        pipe: Any,
        names: Sequence[str],
        weights: Sequence[Weight],
        way: Way = "sum",
        denoiser: str = "unet",
    ) -> None:
        self._way = way if len(names) > 1 else "sum"
        self._placed = _find_layers(pipe, names)
        self._denoising = [one for one in self._placed if not one.reads_text]
        self._names = tuple(names)
        if self._way == "composite":
            _average_over(getattr(pipe, denoiser), names, self._let)
        self.reweigh(weights)

    def reweigh(self, weights: Sequence[Weight]) -> None:
        """Let the adapters act with other weights from now on.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in.
        """
        chosen = dict(zip(self._names, weights, strict=True))
        for name, weight in chosen.items():
            _check_blocks(weight, [one for one in self._placed if name in one.names])
        self._weights = chosen
        self._still = self._way != "switch" and not any(weight.moves for weight in weights)
        self._begin()

    def start(self) -> None:
        """Set everything as the first step needs it, whatever an interrupted drawing left."""
        if not self._still:
            self._begin()

    def _begin(self) -> None:
        for one in self._placed:
            self._scale(one, 0.0)
            one.layer.set_adapter(list(one.names), inference_mode=True)
        if self._way == "switch":
            self._let(next(iter(self._weights)))

    def on_step_end(
        self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        """Set everything as the next step needs it: a pipeline's `callback_on_step_end`."""
        if self._still:
            return tensors
        following = step + 1
        if following >= pipe.num_timesteps:
            self._begin()  # the next picture starts as this one did
            return tensors
        if any(weight.moves for weight in self._weights.values()):
            progress = following / max(pipe.num_timesteps - 1, 1)
            for one in self._denoising:
                self._scale(one, progress)
        if self._way == "switch":
            names = list(self._weights)
            self._let(names[following % len(names)])
        return tensors

    def _scale(self, one: _Placed, progress: float) -> None:
        for name in one.names:
            weight = self._weights[name].for_layer(one.component, one.module)
            one.layer.set_scale(name, weight.at(progress))

    def _let(self, name: str) -> None:
        """Let one adapter act on the denoiser, and no other."""
        for one in self._denoising:
            one.layer.set_adapter([name] if name in one.names else [], inference_mode=True)


def _find_layers(pipe: Any, names: Iterable[str]) -> list[_Placed]:
    wanted = list(names)
    found = []
    for component, model in pipe.components.items():
        if not hasattr(model, "named_modules"):
            continue
        for module, layer in model.named_modules():
            if not hasattr(layer, "lora_A"):
                continue
            here = tuple(name for name in wanted if name in layer.lora_A)
            if here:
                found.append(_Placed(layer, component, module, here))
    return found


def _check_blocks(weight: Weight, placed: Sequence[_Placed]) -> None:
    for block, _ in weight.blocks:
        if not any(in_block(block, one.component, one.module) for one in placed):
            there = sorted({_block_of(one) for one in placed})
            raise ConfigError(
                f"The adapter changes nothing in the block {block!r}.",
                f"It changes: {', '.join(there)}.",
            )


def _block_of(one: _Placed) -> str:
    """Return the name of a layer's block as a weight writes it."""
    if one.reads_text:
        return "text"
    first, second = [*one.module.split("."), ""][:2]
    if first in ("down_blocks", "up_blocks"):
        return f"{first.removesuffix('_blocks')}.{second}"
    return "mid" if first == "mid_block" else f"{first}.{second}" if second.isdigit() else first


def _average_over(denoiser: Any, names: Sequence[str], let: Callable[[str], None]) -> None:
    """Make the denoiser predict with each adapter alone and return the mean."""
    predict = denoiser.forward

    @functools.wraps(predict)
    def forward(*args: Any, **kwargs: Any) -> Any:
        results = []
        for name in names:
            let(name)
            results.append(predict(*args, **kwargs))
        if isinstance(results[0], tuple):
            return (_mean([result[0] for result in results]), *results[0][1:])
        return type(results[0])(sample=_mean([result.sample for result in results]))

    denoiser.forward = forward


def _mean(tensors: Sequence[Any]) -> Any:
    return functools.reduce(lambda one, other: one + other, tensors) / len(tensors)
