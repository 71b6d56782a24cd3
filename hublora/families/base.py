"""What the training loop and the generator ask of a model family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hublora.families.parameterization import Parameterization

if TYPE_CHECKING:
    import torch

# What prompts are encoded into, by name; each tensor is [batch, …].
Conditioning = Mapping[str, "torch.Tensor"]


class Family(Protocol):
    """One architecture: which pipeline runs it and how its parts are called.

    Attributes:
        name: Key in the registry.
        pipeline_classes: Names in `model_index.json` that belong to it.
        denoiser: The component that predicts.
        vae: The component that turns images into latents.
        text_encoders: The components that read prompts; an adapter may train them too.
        default_targets: Component -> layers that an adapter targets unless told otherwise.
        convolutions: Component -> its convolutions, which an adapter targets if it is asked to.
        kohya_prefixes: Component -> prefix in kohya's layout.
        card_tags: Tags that the Hub groups adapters of this family by.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    denoiser: str
    vae: str
    text_encoders: tuple[str, ...]
    default_targets: Mapping[str, tuple[str, ...]]
    convolutions: Mapping[str, tuple[str, ...]]
    kohya_prefixes: Mapping[str, str]
    card_tags: tuple[str, ...]

    def load(self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype]) -> Any:
        """Return the pipeline in `folder` on the CPU, from safetensors only.

        Args:
            folder: The pipeline's.
            dtype: Of the weights; or one for each component, and "default" for the others.
        """
        ...

    def architecture(self, pipe: Any) -> str:
        """Return the modelspec name (https://github.com/Stability-AI/ModelSpec), e.g.
        "stable-diffusion-v1/lora"."""
        ...

    def resolution(self, pipe: Any) -> int:
        """Return the side in pixels of the images that the base was made for."""
        ...

    def size_step(self, pipe: Any) -> int:
        """Return what widths and heights must be a multiple of, in pixels."""
        ...

    def inpaints(self, pipe: Any) -> bool:
        """Tell whether the denoiser sees a mask and what surrounds it besides the noisy latents."""
        ...

    def parameterization(self, pipe: Any) -> Parameterization:
        """Return the noise and the prediction that the base model was trained for.

        Raises:
            AdapterError: It is one that cannot be trained.
        """
        ...

    def encode_images(self, pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the latents, each [B, c, h, w], scaled.

        Args:
            pipe: The pipeline.
            pixels: [B, 3, H, W] in [-1, 1].
        """
        ...

    def encode_prompts(self, pipe: Any, prompts: Sequence[str]) -> Conditioning:
        """Return what `predict` is conditioned on for each prompt; longer ones are cut."""
        ...

    def count_tokens(self, pipe: Any, prompts: Sequence[str]) -> list[int]:
        """Return how many tokens each prompt has, markers included, before it is cut."""
        ...

    def max_tokens(self, pipe: Any) -> int:
        """Return how many tokens of a prompt are read, markers included."""
        ...

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
        size_conditioning: torch.Tensor,
    ) -> torch.Tensor:
        """Return the denoiser's prediction, [B, c, h, w].

        Args:
            denoiser: The denoiser, possibly wrapped for several devices.
            noisy: [B, c, h, w]; of a base that inpaints [B, 2c + 1, h, w]: with the mask, 1 where
                it draws, and the latents around it.
            timesteps: [B], integers in [0, T).
            conditioning: As `encode_prompts` returns it.
            size_conditioning: [B, 6] in pixels: height and width of the original image, top and
                left of the crop in the resized image, height and width of the crop. Ignored by
                families without size conditioning.
        """
        ...
