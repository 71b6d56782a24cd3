"""The layers of one component that carry adapters, and the buffers of those that are active.

In each layer, the active adapters lie rank beside rank in the two matrices of *one* PEFT adapter,

    A = [A₁; A₂; …],  B = [w₁·s₁·B₁, w₂·s₂·B₂, …],  B A = Σ w·s·BA

which is the exact weighted sum, costs two products for any number of adapters, and changes by
copying numbers: other adapters or other weights are no other program, so a compiled component is
not compiled again. Inactive adapters are not in the buffers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig

from hublora.errors import ConfigError
from hublora.generation.lora.layer import LayerLora, wrap
from hublora.generation.lora.packed import PackedLora
from hublora.memory.frozen_linear import compute_dtype
from hublora.module_lock import MODULE_LOCK

Factors = float | list[float]  # one for the whole component, or one for each layer of an adapter
Active = tuple[PackedLora, Factors]
_MOST_PLACEMENTS = 32  # each has two views a layer, about 1 kB together


@dataclass(frozen=True, eq=False)
class _Placement:
    """Views into a component's buffers, one list for each adapter and one view for each layer.

    Attributes:
        downs: Rows of A, [rank, in, …].
        ups: Columns of B, [out, rank, …].
        dora_scales: Output scales, [out]; an empty list for an adapter without DoRA.
    """

    downs: list[list[torch.Tensor]]
    ups: list[list[torch.Tensor]]
    dora_scales: list[list[torch.Tensor]]


class ComponentLora:
    """Buffers for the adapters of one component.

    Args:
        model: The component, a torch module.
        name: Name of the PEFT adapter.
        max_rank: Rank of every layer's buffers, at least. With 0, buffers are as large as the
            adapters that are reserved, and a layer without any adds nothing; otherwise shapes stay.
        device: Returns the device of computation, for layers whose own weights are offloaded.
    """

    def __init__(
        self, model: Any, name: str, max_rank: int, device: Callable[[], torch.device]
    ) -> None:
        self._model = getattr(model, "_orig_mod", model)  # torch.compile wraps it
        self._name, self._max_rank, self._device = name, max_rank, device
        self.layers: dict[str, LayerLora] = {}
        self._copies: dict[int, PackedLora] = {}
        self._placements: dict[tuple[Any, ...], _Placement] = {}
        self._placement: _Placement | None = None
        self._active: tuple[int, ...] = ()
        self._addresses: list[int] = []  # of the buffers that the placements are views of
        self._is_registered = True  # whether peft_config states the buffers' ranks
        self._config = LoraConfig(r=8, lora_alpha=8, inference_mode=True, init_lora_weights=False)

    def reserve(self, adapters: Sequence[PackedLora], together: bool = True) -> None:
        """Allocate buffers for adapters, which `activate` may name from now on.

        Args:
            adapters: All that will be active.
            together: Whether at once, or one at a time.

        Raises:
            ConfigError: The adapters were taken off the pipeline, or fused into it.
        """
        self._check_unchanged()
        serials = {one.serial for one in adapters}
        self._copies = {serial: one for serial, one in self._copies.items() if serial in serials}
        needed: dict[str, int] = {}
        for one in adapters:
            for layer, rank in zip(one.layers, one.ranks, strict=True):
                before = needed.get(layer, 0)
                needed[layer] = before + rank if together else max(before, rank)
        dora_layers = {layer for one in adapters if one.dora_scales for layer in one.layers}
        with MODULE_LOCK, torch.inference_mode(False), torch.no_grad():
            self._resize(needed, dora_layers)

    @torch.compiler.disable
    def activate(self, adapters: Sequence[Active]) -> None:
        """Activate these adapters, and no others.

        Args:
            adapters: Reserved ones, each with its weight, or one weight for each of its layers.

        Raises:
            ConfigError: The adapters were taken off the pipeline, or fused into it.
        """
        self._check_unchanged()
        adapters = [one for one in adapters if _acts(one[1])]
        with torch.inference_mode(False), torch.no_grad():
            local = [(self._on_device(packed), factors) for packed, factors in adapters]
            placement = self._place([packed for packed, _ in local])
            serials = tuple(packed.serial for packed, _ in local)
            views = zip(local, placement.downs, placement.ups, strict=True)
            before, self._active = self._active, ()  # what is interrupted is copied again
            for (packed, factors), downs, ups in views:
                if before != serials:
                    torch._foreach_copy_(downs, packed.downs)
                torch._foreach_copy_(ups, packed.ups)
                if factors != 1.0:
                    torch._foreach_mul_(ups, factors)
            self._set_dora_scales(placement, local)
            self._active = serials

    def _check_unchanged(self) -> None:
        if self.layers and self._name not in getattr(self._model, "peft_config", {}):
            raise ConfigError("The adapters were taken off this pipeline.", "Load it again.")
        if any(layer.fused for layer in self.layers.values()):
            raise ConfigError(
                "The adapters are fused into this pipeline's weights.", "Call unfuse_lora() first."
            )

    def _on_device(self, packed: PackedLora) -> PackedLora:
        """Return the adapter on the device of the buffers."""
        device = next(iter(self.layers.values())).tensors()[0].device
        if packed.flat.device == device:
            return packed
        copy = self._copies.get(packed.serial)
        if copy is None or copy.flat.device != device:
            copy = self._copies[packed.serial] = packed.on(device)
        return copy

    def _place(self, adapters: Sequence[PackedLora]) -> _Placement:
        """Return where the adapters go; ranks of the buffers that no adapter takes are zero."""
        addresses = self._current_addresses()
        if addresses != self._addresses:  # allocated anew, or moved to another device or dtype
            self._addresses, self._placement = addresses, None
            self._placements.clear()
        layout = tuple(one.layout for one in adapters)
        placement = self._placements.get(layout)
        if placement is None:
            if len(self._placements) >= _MOST_PLACEMENTS:
                self._placements.clear()
            placement = self._placements[layout] = self._views(adapters)
        if placement is not self._placement:
            self._placement, self._active = None, ()
            if self.layers:
                torch._foreach_zero_([layer.tensors()[1] for layer in self.layers.values()])
            self._placement = placement
        return placement

    def _views(self, adapters: Sequence[PackedLora]) -> _Placement:
        placement, used = _Placement([], [], []), dict.fromkeys(self.layers, 0)
        for one in adapters:
            downs, ups = [], []
            for layer, rank in zip(one.layers, one.ranks, strict=True):
                down, up = self.layers[layer].tensors()
                start, used[layer] = used[layer], used[layer] + rank
                downs.append(down[start : used[layer]])
                ups.append(up[:, start : used[layer]])
            scales = [self.layers[layer].dora_scale for layer in one.layers if one.dora_scales]
            placement.downs.append(downs)
            placement.ups.append(ups)
            placement.dora_scales.append([scale for scale in scales if scale is not None])
        return placement

    def _set_dora_scales(self, placement: _Placement, adapters: Sequence[Active]) -> None:
        found = [scale for one in self.layers.values() if (scale := one.dora_scale) is not None]
        if not found:
            return
        torch._foreach_zero_(found)
        for (packed, factors), scales in zip(adapters, placement.dora_scales, strict=True):
            if scales:
                torch._foreach_add_(scales, torch._foreach_mul(packed.dora_scales, factors))

    def _resize(self, needed: Mapping[str, int], dora_layers: Collection[str]) -> None:
        """Give every layer buffers of the rank that it needs."""
        for name in needed.keys() - self.layers.keys():
            self.layers[name] = wrap(self._model, name, self._name, self._config)
        dtype = compute_dtype(self._model)
        for name, layer in self.layers.items():
            rank = needed.get(name, 0)
            size = max(rank, layer.rank, self._max_rank) if self._max_rank else rank or layer.rank
            if size != layer.rank:
                self._is_registered = False
                layer.resize(size, dtype, self._device)
            layer.set_enabled(bool(rank or self._max_rank))
            if name in dora_layers:
                layer.enable_dora()
            elif not self._max_rank:
                layer.disable_dora()
        if not self._is_registered:
            self._register()

    def _register(self) -> None:
        """Write the adapter's layers and ranks into the component's `peft_config`."""
        ranks = {f"^{re.escape(name)}$": layer.rank for name, layer in self.layers.items()}
        self._config.target_modules = set(self.layers)
        self._config.rank_pattern, self._config.alpha_pattern = ranks, dict(ranks)
        self._model.peft_config = {
            **getattr(self._model, "peft_config", {}),
            self._name: self._config,
        }
        self._model._hf_peft_config_loaded = True
        self._is_registered = True

    def _current_addresses(self) -> list[int]:
        found = []
        for layer in self.layers.values():
            down, up = layer.tensors()
            scale = layer.dora_scale
            found += [down.data_ptr(), up.data_ptr(), 0 if scale is None else scale.data_ptr()]
        return found


def _acts(factors: Factors) -> bool:
    return any(factors) if isinstance(factors, list) else bool(factors)
