"""Image inputs of a pipeline: image-to-image, inpainting, ControlNet, IP-Adapter.

Each is the ordinary diffusers pipeline for it, made of the components of the one in hand
(`from_pipe`): nothing is loaded twice, and the adapters stay on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.families import family_of_pipeline
from hublora.generation.sample import inpaints

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.sample import Sampling


@dataclass(frozen=True)
class Conditions:
    """Image inputs in memory, besides the prompt.

    Attributes:
        image: Image to start from.
        strength: How much of `image` is generated anew, in (0, 1]; None is the pipeline's own.
        mask: Inpainting mask, white where `image` is generated anew, black where it stays.
        controlnet: A loaded ControlNet.
        control_image: Conditioning image of the ControlNet.
        ip_adapter_image: Image prompt of the pipeline's IP-Adapter.
        stated: Facts about them for the generated image's metadata.
    """

    image: Image.Image | None = None
    strength: float | None = None
    mask: Image.Image | None = None
    controlnet: Any = None
    control_image: Image.Image | None = None
    ip_adapter_image: Image.Image | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image is None and (self.mask is not None or self.strength is not None):
            raise ConfigError("A mask and a strength are of an image.", "Name it: --image FILE")
        if (self.controlnet is None) != (self.control_image is None):
            raise ConfigError("--controlnet and --control-image go together.")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ConfigError(f"The strength {self.strength:g} is not in (0, 1].", "0.6 is usual.")

    @property
    def some(self) -> bool:
        """Whether there is any image input."""
        return self.shape_it or self.ip_adapter_image is not None

    @property
    def shape_it(self) -> bool:
        """Whether the size of the generated image is that of an input."""
        return self.image is not None or self.controlnet is not None


def fingerprint(image: Image.Image) -> str:
    """Return the SHA-256 of an image's size and pixels, whatever file it came from."""
    size = f"{image.width}x{image.height} ".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()


def open_image(path: Path) -> Image.Image:
    """Return an image in RGB, upright.

    Raises:
        ConfigError: It cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{path} is not an image that can be read.") from error


def conditioned(pipe: Any, conditions: Conditions) -> Any:
    """Return the pipeline for these image inputs, of the same components as `pipe`.

    Raises:
        ConfigError: The base inpaints, and there is no mask.
    """
    import diffusers

    if not conditions.shape_it:
        return pipe
    if conditions.mask is None and inpaints(pipe):
        raise ConfigError(
            "This base fills in what a mask shows.", "Add --image photo.png --mask mask.png"
        )
    if conditions.mask is not None:
        kind = diffusers.AutoPipelineForInpainting
    elif conditions.image is not None:
        kind = diffusers.AutoPipelineForImage2Image
    else:
        kind = diffusers.AutoPipelineForText2Image
    more = {}
    if conditions.controlnet is not None:
        denoiser = getattr(pipe, family_of_pipeline(pipe).denoiser)
        more["controlnet"] = conditions.controlnet.to(pipe._execution_device, denoiser.dtype)
    made = kind.from_pipe(pipe, **more)
    made.hublora = getattr(pipe, "hublora", None)
    return made


def inputs_of(conditions: Conditions, plan: Sampling, step: int) -> Mapping[str, Any]:
    """Return further arguments of the pipeline's call, images in the size that is generated.

    Args:
        conditions: The image inputs.
        plan: Sampling settings, whose width and height replace the image's.
        step: Pixels that sides are a multiple of.
    """
    inputs: dict[str, Any] = {}
    if conditions.ip_adapter_image is not None:
        inputs["ip_adapter_image"] = conditions.ip_adapter_image
    first = conditions.image or conditions.control_image
    if first is None:
        return inputs
    size = (plan.width or _fitting(first.width, step), plan.height or _fitting(first.height, step))

    def fitted(image: Image.Image) -> Image.Image:
        return image if image.size == size else image.resize(size)

    if conditions.image is not None:
        inputs["image"] = fitted(conditions.image)
    if conditions.mask is not None:
        inputs["mask_image"] = fitted(conditions.mask.convert("L"))
    if conditions.strength is not None:
        inputs["strength"] = conditions.strength
    if conditions.control_image is not None:
        name = "image" if conditions.image is None else "control_image"
        inputs[name] = fitted(conditions.control_image)
    return inputs


def _fitting(side: int, step: int) -> int:
    return max(step, side // step * step)
