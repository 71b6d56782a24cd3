"""The layers of one component that carry adapters, and the buffers that hold those that act.

In each layer, the adapters that act lie rank beside rank in the two matrices of *one* PEFT adapter,

    A = [A₁; A₂; …],  B = [w₁·s₁·B₁, w₂·s₂·B₂, …],  B A = Σ w·s·BA

which is the exact weighted sum, costs two products however many adapters it is of, and changes by
copying numbers: another adapter, another weight or another set of them is no other program, so that
a compiled component is not compiled again. Adapters that do not act are not in the buffers.
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

Factors = float | list[float]  # one for the whole component, or one for each layer of a stack
Acting = tuple[PackedLora, Factors]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where the numbers of some stacks go.

    Attributes:
        downs: For each stack, a view of A for each of its layers.
        ups: The same of B.
        lengths: The same of the outputs' lengths, for stacks of DoRA.
    """

    downs: list[list[torch.Tensor]]
    ups: list[list[torch.Tensor]]
    lengths: list[list[torch.Tensor]]


class ComponentLora:
    """The layers of one component.

    Args:
        model: The component.
        name: Of the PEFT adapter.
        room: Ranks that each layer keeps room for. With 0, buffers are as large as what is held,
            and layers of which nothing is held add nothing; otherwise their shapes stay.
        device: Tells where is computed, for layers whose own weights come and go.
    """

    def __init__(
        self, model: Any, name: str, room: int, device: Callable[[], torch.device]
    ) -> None:
        self._model = getattr(model, "_orig_mod", model)  # torch.compile wraps it
        self._name, self._room, self._device = name, room, device
        self.slots: dict[str, LayerLora] = {}
        self._copies: dict[int, PackedLora] = {}
        self._plans: dict[tuple[Any, ...], _Plan] = {}
        self._plan: _Plan | None = None
        self._shown: tuple[int, ...] = ()
        self._where: list[int] = []  # addresses of the buffers that the plans have views of
        self._config = LoraConfig(r=8, lora_alpha=8, inference_mode=True, init_lora_weights=False)

    def hold(self, stacks: Sequence[PackedLora], together: bool = True) -> None:
        """Make room for stacks, which `show` may let act from now on.

        Args:
            stacks: All that will act.
            together: Whether at once, or one at a time.

        Raises:
            ConfigError: The adapters were taken off the pipeline, or fused into it.
        """
        self._check_there()
        serials = {stack.serial for stack in stacks}
        self._copies = {serial: one for serial, one in self._copies.items() if serial in serials}
        needed: dict[str, int] = {}
        for stack in stacks:
            for module, rank in zip(stack.modules, stack.ranks, strict=True):
                there = needed.get(module, 0)
                needed[module] = there + rank if together else max(there, rank)
        lengthened = {module for stack in stacks if stack.longer for module in stack.modules}
        with torch.inference_mode(False), torch.no_grad():
            self._make_room(needed, lengthened)

    @torch.compiler.disable
    def show(self, acting: Sequence[Acting]) -> None:
        """Let these stacks act, and no others.

        Args:
            acting: Of what is held, each stack and its weight, or one weight for each of its
                layers.

        Raises:
            ConfigError: The adapters were taken off the pipeline, or fused into it.
        """
        self._check_there()
        acting = [one for one in acting if _acts(one[1])]
        with torch.inference_mode(False), torch.no_grad():
            here = [(self._brought(stack), factors) for stack, factors in acting]
            plan = self._turn_to([stack for stack, _ in here])
            serials = tuple(stack.serial for stack, _ in here)
            for (stack, factors), downs, ups in zip(here, plan.downs, plan.ups, strict=True):
                if self._shown != serials:
                    torch._foreach_copy_(downs, stack.downs)
                torch._foreach_copy_(ups, stack.ups)
                if factors != 1.0:
                    torch._foreach_mul_(ups, factors)
            self._shown = serials
            self._lengthen(plan, here)

    def _check_there(self) -> None:
        if self.slots and self._name not in getattr(self._model, "peft_config", {}):
            raise ConfigError("The adapters were taken off this pipeline.", "Load it again.")
        if any(slot.fused for slot in self.slots.values()):
            raise ConfigError(
                "The adapters are fused into this pipeline's weights.", "Call unfuse_lora() first."
            )

    def _brought(self, stack: PackedLora) -> PackedLora:
        """Return the stack where the buffers are."""
        place = next(iter(self.slots.values())).tensors()[0].device
        if stack.flat.device == place:
            return stack
        copy = self._copies.get(stack.serial)
        if copy is None or copy.flat.device != place:
            copy = self._copies[stack.serial] = stack.on(place)
        return copy

    def _turn_to(self, stacks: Sequence[PackedLora]) -> _Plan:
        """Return where the stacks go; what is in nobody's place there is zero."""
        where = self._addresses()
        if where != self._where:  # made anew, or brought to another device or type
            self._where, self._plan = where, None
            self._plans.clear()
        layout = tuple(stack.layout for stack in stacks)
        plan = self._plans.get(layout)
        if plan is None:
            plan = self._plans[layout] = self._lay_out(stacks)
        if plan is not self._plan:
            self._plan, self._shown = plan, ()
            if self.slots:
                torch._foreach_zero_([slot.tensors()[1] for slot in self.slots.values()])
        return plan

    def _lay_out(self, stacks: Sequence[PackedLora]) -> _Plan:
        plan, used = _Plan([], [], []), dict.fromkeys(self.slots, 0)
        for stack in stacks:
            downs, ups = [], []
            for module, rank in zip(stack.modules, stack.ranks, strict=True):
                down, up = self.slots[module].tensors()
                start, used[module] = used[module], used[module] + rank
                downs.append(down[start : used[module]])
                ups.append(up[:, start : used[module]])
            lengths = [self.slots[module].lengths for module in stack.modules if stack.longer]
            plan.downs.append(downs)
            plan.ups.append(ups)
            plan.lengths.append([one for one in lengths if one is not None])
        return plan

    def _lengthen(self, plan: _Plan, acting: Sequence[Acting]) -> None:
        everywhere = [one for slot in self.slots.values() if (one := slot.lengths) is not None]
        if not everywhere:
            return
        torch._foreach_zero_(everywhere)
        for (stack, factors), lengths in zip(acting, plan.lengths, strict=True):
            if lengths:
                torch._foreach_add_(lengths, torch._foreach_mul(stack.longer, factors))

    def _make_room(self, needed: Mapping[str, int], lengthened: Collection[str]) -> None:
        """Bring every layer's buffers to the size that is needed."""
        for module in needed.keys() - self.slots.keys():
            self.slots[module] = wrap(self._model, module, self._name, self._config)
        dtype, device, changed = next(self._model.parameters()).dtype, self._device(), False
        for module, slot in self.slots.items():
            rank = needed.get(module, 0)
            size = max(rank, slot.rank, self._room) if self._room else rank or slot.rank
            changed |= slot.resize(size, dtype, device)
            slot.let_act(bool(rank or self._room))
            if module in lengthened:
                slot.lengthen()
            elif not self._room:
                slot.stop_lengthening()
        if changed:
            self._register()

    def _register(self) -> None:
        """Tell diffusers and PEFT that the component has this adapter, and of which ranks."""
        ranks = {f"^{re.escape(name)}$": slot.rank for name, slot in self.slots.items()}
        self._config.target_modules = set(self.slots)
        self._config.rank_pattern, self._config.alpha_pattern = ranks, dict(ranks)
        self._model.peft_config = {
            **getattr(self._model, "peft_config", {}),
            self._name: self._config,
        }
        self._model._hf_peft_config_loaded = True

    def _addresses(self) -> list[int]:
        found = []
        for slot in self.slots.values():
            down, up = slot.tensors()
            lengths = slot.lengths
            found += [down.data_ptr(), up.data_ptr(), 0 if lengths is None else lengths.data_ptr()]
        return found


def _acts(factors: Factors) -> bool:
    return any(factors) if isinstance(factors, list) else bool(factors)
