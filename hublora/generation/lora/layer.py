"""A layer that carries adapters: PEFT's around the base's, with buffers of any rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Conv2d as LoraConv2d
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer

from hublora.errors import ConfigError
from hublora.generation.lora.dora import DoraScale, DoraVariant
from hublora.memory.frozen_linear import is_quantized


class LayerLora:
    """The LoRA branch of one layer.

    Args:
        layer: PEFT's layer around the base's.
        name: Name of the PEFT adapter.

    Attributes:
        rank: Rank of the buffers; 0 before the first `resize`.
    """

    def __init__(self, layer: LoraLayer, name: str) -> None:
        self._layer, self._name = layer, name
        self._down: Any = layer.lora_A[name]
        self._up: Any = layer.lora_B[name]
        self.rank = 0

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A, [rank, in, …], and B, [out, rank, …]."""
        return self._down._parameters["weight"], self._up._parameters["weight"]

    @property
    def dora_scale(self) -> torch.Tensor | None:
        """Σ weight · (c − 1) of the active DoRA adapters, [out]; None where none was enabled."""
        modules = self._layer.lora_magnitude_vector
        return modules[self._name].scale if self._name in modules else None

    def resize(self, rank: int, dtype: torch.dtype, device: Callable[[], torch.device]) -> None:
        """Give the buffers another rank, filled with zeros.

        Args:
            rank: Rank of the buffers.
            dtype: Type of the numbers.
            device: Returns the device of computation; diffusers walks all modules to find it.
        """
        self.rank = 0  # if what follows is interrupted
        base = self._layer.get_base_layer()
        own = getattr(base, "computes_on", base.weight.device)  # a swapped one waits on the CPU
        if own.type == "meta":  # an offloaded weight is on meta meanwhile
            own = device()
        down, up = self.tensors()
        zeros = torch.zeros(rank, *down.shape[1:], dtype=dtype, device=own)
        self._down.weight = torch.nn.Parameter(zeros, requires_grad=False)
        zeros = torch.zeros(up.shape[0], rank, *up.shape[2:], dtype=dtype, device=own)
        self._up.weight = torch.nn.Parameter(zeros, requires_grad=False)
        _set_width(self._down, "out", rank)
        _set_width(self._up, "in", rank)
        self._layer.r[self._name] = self._layer.lora_alpha[self._name] = self.rank = rank

    @property
    def fused(self) -> bool:
        """Whether `fuse_lora` has added the buffers to the base's weight."""
        return self._name in self._layer.merged_adapters

    def set_enabled(self, enabled: bool) -> None:
        """Enable or disable the LoRA branch; disabled, forward() runs the base layer only.

        What diffusers' `set_adapters` and `disable_lora` have changed is set back.
        """
        self._layer.scaling[self._name] = 1.0
        disabled = enabled and self._layer.disable_adapters
        if disabled:
            self._layer.enable_adapters(True)  # and lets parameters have gradients
        others = [name for name in self._layer.active_adapters if name != self._name]
        wanted = [self._name, *others] if enabled else others
        if disabled or wanted != self._layer.active_adapters:
            self._layer.set_adapter(wanted, inference_mode=True)

    def enable_dora(self) -> None:
        """Make forward() scale the layer's own output by `dora_scale` as well."""
        if self.dora_scale is None:
            _, up = self.tensors()
            own = DoraScale(up.shape[0], up.dtype, up.device)
            self._layer.lora_magnitude_vector[self._name] = own
        self._layer.lora_variant.setdefault(self._name, DoraVariant())

    def disable_dora(self) -> None:
        """Make forward() a plain sum of the layer's own output and BA·x again."""
        if self.dora_scale is not None:
            self._layer.lora_variant.pop(self._name, None)
            del self._layer.lora_magnitude_vector[self._name]


class _QuantizedLora(LoraLinear):
    """PEFT's layer around a quantised one, whose weight nothing can be added to."""

    def merge(self, *args: Any, **options: Any) -> None:
        """Refuse to add the adapter to the weight.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "Adapters cannot be fused into a quantised base.", "Load it without quantize."
        )


def _set_width(module: Any, side: str, rank: int) -> None:
    """Set the stated in_ or out_ features, or channels, of a linear map or a convolution."""
    kind = "channels" if hasattr(module, "in_channels") else "features"
    setattr(module, f"{side}_{kind}", rank)


def wrap(model: Any, layer_name: str, name: str, config: LoraConfig) -> LayerLora:
    """Return the LoRA branch of a layer, putting PEFT's layer around it if there is none.

    The buffers are on the meta device until the first `resize`.

    Args:
        model: The component.
        layer_name: Dotted name of the layer in it.
        name: Name of the PEFT adapter.
        config: PEFT's settings of the adapter.
    """
    parent, _, child = layer_name.rpartition(".")
    layer = model.get_submodule(layer_name)
    settings = {"r": 1, "lora_alpha": 1, "config": config}
    with torch.device("meta"):
        if isinstance(layer, LoraLayer):
            layer.update_layer(name, **settings)
        else:
            kind = LoraConv2d if isinstance(layer, torch.nn.Conv2d) else LoraLinear
            kind = _QuantizedLora if is_quantized(layer) else kind
            layer = kind(layer, name, **settings).train(layer.training)
            setattr(model.get_submodule(parent), child, layer)
    return LayerLora(layer, name)
