"""The part of `diffusers.DiffusionPipeline` that hublora relies on, as a type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Pipeline(Protocol):
    """A diffusers pipeline; its components are attributes under the names of `components`.

    Attributes:
        scheduler: A diffusers scheduler.
        hublora: The adapters of a pipeline that `hublora.load` returned.
    """

    scheduler: Any
    hublora: Any

    @property
    def components(self) -> Mapping[str, Any]:
        """Name -> component; None for an optional one that is missing."""
        ...

    @property
    def config(self) -> Any:
        """The entries of `model_index.json`."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the components."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move the components to a device or dtype and return the pipeline."""
        ...

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Set the arguments of the tqdm bar."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate images."""
        ...

    def __getattr__(self, name: str) -> Any:
        """Return a component or method of the pipeline's own class."""
        ...
