"""A frozen adapter that acts on a base while another adapter is trained, and at no other time.

A base that was distilled to a few steps loses that when it is trained on ordinary noise levels. An
assistant is an adapter that undoes the distillation: trained on top of it, the other one learns
only the new concept, and images are generated without the assistant.

Each of its layers is a branch beside the base's own, so that the base's weights stay as they are,
quantised ones too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from hublora.adapters.adapter import LowRank
from hublora.errors import ConfigError


class Assistant:
    """The branches of a frozen adapter in a pipeline; they act from the beginning.

    Args:
        pipe: Pipeline of the base, with or without the adapter that is trained.
        updates: Component -> layer, as the base names it -> update in the layer's shape.
        dtype: Type that the base computes in.
        device: Device that the base computes on.

    Raises:
        ConfigError: The adapter is a DoRA, which scales the base's own weights.
    """

    def __init__(
        self,
        pipe: Any,
        updates: Mapping[str, Mapping[str, LowRank]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._acts = True
        for component, layers in updates.items():
            model = getattr(pipe, component)
            for name, update in layers.items():
                if update.magnitude is not None:
                    raise ConfigError(
                        "A DoRA adapter cannot be an assistant (--assistant): it scales the "
                        "weights of the base.",
                        "Name a LoRA adapter.",
                    )
                down, up = update.down, update.up.float() * update.scale
                branch = _Branch(self, down.to(device, dtype), up.to(device, dtype))
                layer = model.get_submodule(name)
                getattr(layer, "base_layer", layer).register_forward_hook(branch)

    @property
    def acts(self) -> bool:
        """Whether the branches add to the layers' outputs."""
        return self._acts

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the base without the assistant inside this context."""
        before, self._acts = self._acts, False
        try:
            yield
        finally:
            self._acts = before


class _Branch:
    """Hook that adds B·A·x to a layer's output."""

    def __init__(self, assistant: Assistant, down: torch.Tensor, up: torch.Tensor) -> None:
        self._assistant, self._down, self._up = assistant, down, up

    def __call__(self, layer: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        if not self._assistant.acts:
            return None
        (inputs,) = args
        if self._down.ndim == 2:
            return output + functional.linear(functional.linear(inputs, self._down), self._up)
        hidden = functional.conv2d(
            inputs, self._down, None, layer.stride, layer.padding, layer.dilation
        )
        return output + functional.conv2d(hidden, self._up)
