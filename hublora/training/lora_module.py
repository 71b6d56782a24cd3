"""The adapter on a component of the base while it is trained: added, read, switched off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from hublora.adapters.adapter import LowRank
from hublora.adapters.layer_names import file_prefix
from hublora.adapters.lycoris import hadamard, kronecker
from hublora.adapters.match import reshape_update
from hublora.errors import ConfigError
from hublora.memory.frozen_linear import weight_shape
from hublora.module_lock import MODULE_LOCK
from hublora.training.config.sections import AdapterSettings

ADAPTER_NAME = "default"

Pair = tuple[torch.Tensor, torch.Tensor]

# Method -> how its parts become low rank. Exactly: only what vanishes in float64 is cut.
_PRODUCTS = {"loha": hadamard, "lokr": kronecker}
_EXACT = 1e-7
_PARTS = re.compile(r"(hada_[wt]\d(?:_[ab])?|lokr_[wt]\d(?:_[ab])?)")


@dataclass
class LoraModule:
    """A component of the base with the adapter's layers in it.

    Attributes:
        model: The component.
        method: Value of `AdapterSettings.method`.
        start: Layer -> initial down and up of PiSSA or OLoRA, subtracted from the base's weight.
        originals: Layer -> the base's own weight, where `start` was subtracted from it.
    """

    model: torch.nn.Module
    method: str
    start: dict[str, Pair] = field(default_factory=dict)
    originals: dict[str, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters by their names in the model."""
        layers = tuple(f"{name}." for name, _ in tuned(self.model))
        named = self.model.named_parameters()
        return {name: p for name, p in named if p.requires_grad and name.startswith(layers)}

    def read(self) -> dict[str, LowRank]:
        """Return the updates under the layer names of files, in float32 on the CPU.

        PiSSA and OLoRA start at factors of the base's own weights; their update is the difference
        to those, of twice the rank, so that it fits the unchanged base.
        """
        prefix, read = file_prefix(self.model), _READERS.get(self.method, _read_product)
        return {prefix + name: read(self, name, layer) for name, layer in tuned(self.model)}

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of a checkpoint, by name."""
        state: dict[str, torch.Tensor] = {
            f"now.{n}": p.detach() for n, p in self.parameters.items()
        }
        for name, (down, up) in self.start.items():
            state |= {f"down.{name}": down, f"up.{name}": up}
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the tensors of a checkpoint into the same layers."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"now.{name}"])
            for name, layer in tuned(self.model):
                if name in self.start:
                    self.start[name] = (state[f"down.{name}"], state[f"up.{name}"])
                    _take_from_base(layer, self.originals[name], self.start[name])

    @contextmanager
    def without(self) -> Iterator[None]:
        """Run the component without the adapter inside this context."""
        layers = dict(tuned(self.model))
        changed = {name: layers[name].get_base_layer().weight.data for name in self.originals}
        for name, layer in layers.items():
            layer.enable_adapters(False)
            if name in changed:
                layer.get_base_layer().weight.data = self.originals[name].to(changed[name].device)
        try:
            yield
        finally:
            for name, layer in layers.items():
                layer.enable_adapters(True)
                if name in changed:
                    layer.get_base_layer().weight.data = changed[name]


def adapt(
    settings: AdapterSettings, model: torch.nn.Module, ranks: Mapping[str, int]
) -> LoraModule:
    """Add an untrained adapter in float32 to `model`, and freeze everything else in it.

    Args:
        settings: Settings of the adapter.
        model: A component of the base.
        ranks: Layer -> rank.

    Raises:
        ConfigError: The initialisation does not work on one of the layers.
    """
    from diffusers.training_utils import cast_training_params

    model.requires_grad_(False)
    adapted = LoraModule(model, settings.method)
    if settings.init != "gaussian":
        adapted.originals = _set_aside(model, ranks, settings.init)
    with MODULE_LOCK:
        model.add_adapter(_peft_config(settings, ranks), adapter_name=ADAPTER_NAME)
    cast_training_params([model], dtype=torch.float32)
    for name, layer in tuned(model):
        if name in adapted.originals:
            down, up = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
            adapted.start[name] = (_copy(down), _copy(up))
            # PEFT has rounded them to the base's precision since it took them out of the base.
            _take_from_base(layer, adapted.originals[name], adapted.start[name])
    return adapted


def start_from(
    adapted: LoraModule, updates: Mapping[str, LowRank], ranks: Mapping[str, int]
) -> None:
    """Load an adapter's updates as initial weights.

    An update of a smaller rank leaves the other rows untrained; its scale is multiplied into it.

    Args:
        adapted: A component with an untrained adapter.
        updates: Layer, as the model names it -> update.
        ranks: Layer -> rank.

    Raises:
        ConfigError: An update is of a layer that is not trained, or of a larger rank.
    """
    layers = dict(tuned(adapted.model))
    for name, update in updates.items():
        if name not in layers:
            raise ConfigError(
                f"adapter.start_from has the layer {name}, which is not trained here.",
                "Train the same layers: --target, adapter.conv_rank, --train-text-encoder.",
            )
        if update.rank > ranks[name]:
            raise ConfigError(
                f"adapter.start_from has rank {update.rank} in {name}, more than this training's "
                f"{ranks[name]}.",
                f"Use --rank {update.rank}.",
            )
        layer, ratio = layers[name], update.scale / layers[name].scaling[ADAPTER_NAME]
        with torch.no_grad():
            layer.lora_A[ADAPTER_NAME].weight[: update.rank] = update.down
            layer.lora_B[ADAPTER_NAME].weight[:, : update.rank] = update.up * ratio
            if update.magnitude is not None:
                vector = layer.lora_magnitude_vector[ADAPTER_NAME].weight
                vector.copy_(update.magnitude.view_as(vector))


def tuned(model: torch.nn.Module) -> list[tuple[str, Any]]:
    """Return name and PEFT layer of every layer with the adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer) and ADAPTER_NAME in module.scaling
    ]


def _peft_config(settings: AdapterSettings, ranks: Mapping[str, int]) -> Any:
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    alpha = settings.alpha
    assert alpha is not None, "training.config.resolve fills it in where an adapter is trained"
    others = {f"^{re.escape(n)}$": rank for n, rank in ranks.items() if rank != settings.rank}

    def scale(rank: int) -> float:
        """Return the factor on alpha with which a layer of another rank has the usual scale."""
        ratio = rank / settings.rank
        return ratio**0.5 if settings.rank_stabilized else ratio

    common: dict[str, Any] = {
        "r": settings.rank,
        "target_modules": list(ranks),
        "rank_pattern": others,
        "alpha_pattern": {name: alpha * scale(rank) for name, rank in others.items()},
    }
    if settings.method == "loha":
        return LoHaConfig(alpha=alpha, **common)
    if settings.method == "lokr":
        return LoKrConfig(alpha=alpha, **common)
    return LoraConfig(
        lora_alpha=alpha,
        lora_dropout=settings.dropout,
        init_lora_weights=settings.init,
        use_rslora=settings.rank_stabilized,
        use_dora=settings.method == "dora",
        **common,
    )


def _set_aside(
    model: torch.nn.Module, ranks: Mapping[str, int], init: str
) -> dict[str, torch.Tensor]:
    """Return the weights of the layers, and give the model copies that PEFT may change.

    PEFT subtracts in place; a weight that is mapped from a file stays as the file has it.
    """
    originals = {}
    for name in ranks:
        layer = model.get_submodule(name)
        if not isinstance(layer, torch.nn.Linear):
            raise ConfigError(
                f"adapter.init={init} works on linear layers, and {name} is a convolution.",
                "Leave adapter.conv_rank or the target out, or adapter.init.",
            )
        originals[name] = layer.weight.data
        layer.weight.data = layer.weight.data.clone()
    return originals


def _take_from_base(layer: Any, original: torch.Tensor, start: Pair) -> None:
    """Make the base's weight original − scale · up @ down, as PEFT's initialisation does."""
    weight = layer.get_base_layer().weight
    down, up = (half.to(weight.device) for half in start)
    taken = layer.scaling[ADAPTER_NAME] * up @ down
    weight.data = (original.to(weight.device).float() - taken).to(weight.dtype)


def _read_lora(adapted: LoraModule, name: str, layer: Any) -> LowRank:
    down = _copy(layer.lora_A[ADAPTER_NAME].weight)
    up = _copy(layer.lora_B[ADAPTER_NAME].weight)
    alpha = float(layer.lora_alpha[ADAPTER_NAME])
    if layer.use_rslora[ADAPTER_NAME]:  # files mean alpha / rank
        alpha = layer.scaling[ADAPTER_NAME] * down.shape[0]
    if name in adapted.start:
        first_down, first_up = adapted.start[name]
        down, up = torch.cat([down, first_down]), torch.cat([up, -first_up], dim=1)
        alpha *= 2
    magnitude = None
    if ADAPTER_NAME in layer.lora_magnitude_vector:
        magnitude = _copy(layer.lora_magnitude_vector[ADAPTER_NAME].weight).flatten()
    return LowRank(down, up, alpha, magnitude)


def _read_product(adapted: LoraModule, name: str, layer: Any) -> LowRank:
    parts = {
        match[1]: _copy(parameter)
        for key, parameter in layer.named_parameters()
        if (match := _PARTS.match(key))
    }
    up, down, error = _PRODUCTS[adapted.method](parts, tolerance=_EXACT)
    rank = down.shape[0]
    update = LowRank(down, up, layer.scaling[ADAPTER_NAME] * rank, error=error)
    return reshape_update(update, weight_shape(layer.get_base_layer()))


_READERS = {"lora": _read_lora, "dora": _read_lora}


def _copy(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().float().cpu().contiguous().clone()
