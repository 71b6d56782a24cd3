"""What adapter files ask of a family: the names of its layers in every layout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol


class LoraNames(Protocol):
    """How adapter files name a family's layers.

    Attributes:
        kohya_prefixes: Component -> prefix in kohya's layout, as it is written.
        flat_prefixes: Prefix of names whose dots are underscores -> component, as it is read.
        native_prefixes: Prefix of dotted names of the original implementation -> component, as it
            is read.
        kohya_is_native: Whether kohya's tools flatten the original names or diffusers'.
    """

    @property
    def kohya_is_native(self) -> bool: ...

    @property
    def kohya_prefixes(self) -> Mapping[str, str]: ...

    @property
    def flat_prefixes(self) -> Mapping[str, str]: ...

    @property
    def native_prefixes(self) -> Mapping[str, str]: ...

    def native_layers(self, layers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """Return the original implementation's name of each layer -> the diffusers layers whose
        rows its weight stacks, in that order: the layer alone unless it is fused with others.

        Args:
            layers: The denoiser's layers, all of them or all of one kind; others are left out.
        """
        ...

    def readable_layers(self, layers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """Return `native_layers`, and the same for names that only other tools' files have."""
        ...

    def knows(self, layer: str) -> bool:
        """Tell whether a denoiser of the family has layers that are named like this one, in
        diffusers' names or the original implementation's."""
        ...

    def knows_flat(self, name: str) -> bool:
        """Tell whether a flattened name without its prefix is like one of the family's layers."""
        ...

    def is_swapped(self, layer: str, shape: tuple[int, ...] | None) -> bool:
        """Tell whether the original implementation has the two halves of the rows of a diffusers
        layer in the other order.

        Args:
            layer: Diffusers' name of the layer.
            shape: Shape of its weight; None if it is not known.
        """
        ...

    def kohya_layers(
        self, layers: Collection[str], base_layers: Collection[str] | None = None
    ) -> Mapping[str, str]:
        """Return diffusers' name of each of the denoiser's layers -> the dotted name that kohya's
        tools flatten.

        Args:
            layers: The layers to name.
            base_layers: All layers of the base model's denoiser; None assumes a published one.
        """
        ...

    def kernel(self, layer: str, architecture: str | None) -> tuple[int, int] | None:
        """Return the kernel of a denoiser's convolution, None for a linear layer or one that is not
        known.

        Args:
            layer: Diffusers' name of the layer.
            architecture: Modelspec name of the base model's architecture, if it is known.
        """
        ...

    def unflatten(self, name: str) -> str | None:
        """Return diffusers' name of a layer from its flattened name without the prefix, None where
        the name alone does not determine it."""
        ...

    def diffusers_name(self, name: str) -> str | None:
        """Return diffusers' name of a layer from it or its original name, None where the name alone
        does not determine it: several are stacked there, or its rows are in another order."""
        ...

    def current_name(self, component: str, layer: str) -> str:
        """Return the present name of a layer that older versions of diffusers named otherwise."""
        ...
