"""A layer that carries adapters: PEFT's around the base's, with buffers of any rank."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Conv2d as LoraConv2d
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer

from hublora.generation.lora.dora import Lengthened, LengthenedVariant


class LayerLora:
    """A layer and its buffers.

    Args:
        layer: PEFT's.
        name: Of the PEFT adapter.
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
    def lengths(self) -> torch.Tensor | None:
        """By how much the output is longer, [out]; None where no DoRA acts."""
        there = self._layer.lora_magnitude_vector
        return there[self._name].longer if self._name in there else None

    def resize(self, rank: int, dtype: torch.dtype, device: torch.device) -> bool:
        """Give the buffers another rank, and tell whether that changed anything: what they held
        is gone then."""
        if rank == self.rank:
            return False
        own = self._layer.get_base_layer().weight.device
        device = device if own.type == "meta" else own  # an offloaded weight comes and goes
        down, up = self.tensors()
        zeros = torch.zeros(rank, *down.shape[1:], dtype=dtype, device=device)
        self._down.weight = torch.nn.Parameter(zeros, requires_grad=False)
        zeros = torch.zeros(up.shape[0], rank, *up.shape[2:], dtype=dtype, device=device)
        self._up.weight = torch.nn.Parameter(zeros, requires_grad=False)
        _rename(self._down, "out", rank)
        _rename(self._up, "in", rank)
        self._layer.r[self._name] = self._layer.lora_alpha[self._name] = self.rank = rank
        return True

    @property
    def fused(self) -> bool:
        """Whether its base's weight holds what the buffers held when it was fused."""
        return self._name in self._layer.merged_adapters

    def let_act(self, acts: bool) -> None:
        """Let the layer's output have something added, or cost nothing."""
        active = [name for name in self._layer.active_adapters if name != self._name]
        wanted = [self._name, *active] if acts else active
        if wanted != self._layer.active_adapters:
            self._layer.set_adapter(wanted, inference_mode=True)

    def lengthen(self) -> None:
        """Make the layer apply lengths."""
        if self.lengths is None:
            _, up = self.tensors()
            own = Lengthened(up.shape[0], up.dtype, up.device)
            self._layer.lora_magnitude_vector[self._name] = own
            self._layer.lora_variant[self._name] = LengthenedVariant()

    def stop_lengthening(self) -> None:
        """Make it a plain sum again."""
        if self.lengths is not None:
            del self._layer.lora_magnitude_vector[self._name]
            del self._layer.lora_variant[self._name]


def _rename(module: Any, side: str, rank: int) -> None:
    """Let a linear map or a convolution say what its weight has."""
    kind = "channels" if hasattr(module, "in_channels") else "features"
    setattr(module, f"{side}_{kind}", rank)


def wrap(model: Any, module: str, name: str, config: LoraConfig) -> LayerLora:
    """Put PEFT's layer around a layer of a model, if it is not there; its buffers come later.

    Args:
        model: The component.
        module: The layer's name in it.
        name: Of the PEFT adapter.
        config: Of the adapter.
    """
    parent, _, child = module.rpartition(".")
    layer = model.get_submodule(module)
    settings = {"r": 1, "lora_alpha": 1, "config": config}
    with torch.device("meta"):
        if isinstance(layer, LoraLayer):
            layer.update_layer(name, **settings)
        else:
            kind = LoraConv2d if isinstance(layer, torch.nn.Conv2d) else LoraLinear
            layer = kind(layer, name, **settings).train(layer.training)
            setattr(model.get_submodule(parent), child, layer)
    return LayerLora(layer, name)
