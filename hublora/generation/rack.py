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
from peft.tuners.lora.layer import Conv2d as LoraConv2d
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer

from hublora.errors import ConfigError
from hublora.generation.dora import Lengthened, LengthenedVariant
from hublora.generation.stacks import Stack

Factors = float | list[float]  # one for the whole component, or one for each layer of a stack
Acting = tuple[Stack, Factors]


class Slot:
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


class Rack:
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
        self.slots: dict[str, Slot] = {}
        self._copies: dict[int, Stack] = {}
        self._plans: dict[tuple[Any, ...], _Plan] = {}
        self._plan: _Plan | None = None
        self._shown: tuple[int, ...] = ()
        self._where: list[int] = []  # addresses of the buffers that the plans have views of
        self._config = LoraConfig(r=8, lora_alpha=8, inference_mode=True, init_lora_weights=False)

    def hold(self, stacks: Sequence[Stack], together: bool = True) -> None:
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

    def _brought(self, stack: Stack) -> Stack:
        """Return the stack where the buffers are."""
        place = next(iter(self.slots.values())).tensors()[0].device
        if stack.flat.device == place:
            return stack
        copy = self._copies.get(stack.serial)
        if copy is None or copy.flat.device != place:
            copy = self._copies[stack.serial] = stack.on(place)
        return copy

    def _turn_to(self, stacks: Sequence[Stack]) -> _Plan:
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

    def _lay_out(self, stacks: Sequence[Stack]) -> _Plan:
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
            self.slots[module] = self._wrap(module)
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

    def _wrap(self, module: str) -> Slot:
        """Put PEFT's layer around the base's; its buffers come later."""
        parent, _, child = module.rpartition(".")
        layer = self._model.get_submodule(module)
        settings = {"r": 1, "lora_alpha": 1, "config": self._config}
        with torch.device("meta"):
            if isinstance(layer, LoraLayer):
                layer.update_layer(self._name, **settings)
            else:
                kind = LoraConv2d if isinstance(layer, torch.nn.Conv2d) else LoraLinear
                layer = kind(layer, self._name, **settings).train(layer.training)
                setattr(self._model.get_submodule(parent), child, layer)
        return Slot(layer, self._name)

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
