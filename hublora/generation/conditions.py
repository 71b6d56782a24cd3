"""Image inputs of a pipeline: image-to-image, inpainting, ControlNet, IP-Adapter.

Each uses the diffusers pipeline for it, built from the components of the loaded pipeline
(`from_pipe`): nothing is loaded twice, and adapters stay active.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.images import load_image, to_rgb
from hublora.errors import ConfigError, DataError
from hublora.families import family_of_pipeline
from hublora.generation.sample import inpaints

if TYPE_CHECKING:
    from PIL import Image

    from hublora.generation.sample import Sampling


@dataclass(frozen=True)
class Conditions:
    """Loaded image inputs of a pipeline.

    Attributes:
        image: Image to start from.
        strength: How much of `image` is generated anew, in (0, 1]; None is the pipeline's own.
        mask: Inpainting mask, white where `image` is generated anew, black where it stays.
        controlnet: A loaded ControlNet.
        control_image: Conditioning image of the ControlNet.
        ip_adapter_image: Image prompt of the pipeline's IP-Adapter.
        references: Reference images of an edit model, in order.
        stated: JSON "conditions" for the generated image's metadata.
    """

    image: Image.Image | None = None
    strength: float | None = None
    mask: Image.Image | None = None
    controlnet: Any = None
    control_image: Image.Image | None = None
    ip_adapter_image: Image.Image | None = None
    references: Sequence[Image.Image] = ()
    stated: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image is None and (self.mask is not None or self.strength is not None):
            raise ConfigError("--mask and --strength require --image.", "Add --image FILE")
        if (self.controlnet is None) != (self.control_image is None):
            raise ConfigError(
                "--controlnet and --control-image go together.", "Give both or neither."
            )
        if self.references and self.sets_size:
            raise ConfigError(
                "--reference excludes --image and --control-image.", "Leave one of them out."
            )
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ConfigError(
                f"--strength must be in (0, 1], got {self.strength:g}.", "0.6 is usual."
            )

    @property
    def has_images(self) -> bool:
        """Whether there is any image input."""
        return self.sets_size or self.ip_adapter_image is not None or bool(self.references)

    @property
    def sizing_image(self) -> Image.Image | None:
        """The input that the size of the generated image follows; None without one."""
        return self.image or self.control_image

    @property
    def sets_size(self) -> bool:
        """Whether the size of the generated image is that of an input."""
        return self.image is not None or self.controlnet is not None


def fingerprint(image: Image.Image) -> str:
    """Return the SHA-256 of an image's size and pixels, in hex, equal for every file format."""
    size = f"{image.width}x{image.height} ".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()


def open_image(path: Path) -> Image.Image:
    """Return an image in RGB, turned upright by its EXIF orientation.

    Raises:
        ConfigError: The file is not an image that Pillow reads.
    """
    try:
        with path.open("rb") as file:
            return to_rgb(load_image(file))
    except DataError as error:
        raise ConfigError(
            f"{path} is not an image that can be read: it {error.message}."
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {str(error.strerror).lower()}.") from error


def conditioned(pipe: Any, conditions: Conditions) -> Any:
    """Return the pipeline for these image inputs, with the components of `pipe`.

    Args:
        pipe: Pipeline that `load` returned.
        conditions: Image inputs.

    Raises:
        ConfigError: The base is for inpainting, and `conditions` has no mask.
    """
    import diffusers

    if not conditions.sets_size:
        return pipe
    if conditions.mask is None and inpaints(pipe):
        raise ConfigError(
            "This base is for inpainting and requires --image and --mask.",
            "Add --image photo.png --mask mask.png",
        )
    if conditions.mask is not None:
        kind = diffusers.AutoPipelineForInpainting
    elif conditions.image is not None:
        kind = diffusers.AutoPipelineForImage2Image
    else:
        kind = diffusers.AutoPipelineForText2Image
    components = {}
    if conditions.controlnet is not None:
        denoiser = getattr(pipe, family_of_pipeline(pipe).denoiser)
        components["controlnet"] = conditions.controlnet.to(pipe._execution_device, denoiser.dtype)
    pipeline = kind.from_pipe(pipe, **components)
    pipeline.hublora = getattr(pipe, "hublora", None)
    return pipeline


def fitted_size(image: Image.Image, plan: Sampling, step: int, side: int) -> tuple[int, int]:
    """Return the (width, height) in pixels to generate for an input image.

    An image larger than the base's own size is reduced to about that many pixels: a photo of a
    phone has 50 times as many, and would take hours.

    Args:
        image: Image to start from, or conditioning image.
        plan: Sampling settings, whose width and height go first.
        step: Number of pixels of which width and height are a multiple.
        side: Width and height of the images that the base was trained on, in pixels.
    """
    width, height = image.size
    if plan.width and plan.height:
        return plan.width, plan.height
    if plan.width or plan.height:
        scale = plan.width / width if plan.width else (plan.height or 0) / height
    else:
        scale = min(1.0, side / (width * height) ** 0.5)
    return (
        plan.width or _multiple(width, scale, step),
        plan.height or _multiple(height, scale, step),
    )


def inputs_of(conditions: Conditions, size: tuple[int, int] | None) -> Mapping[str, Any]:
    """Return the arguments of the pipeline's call for image inputs, resized to the generated size.

    Args:
        conditions: Image inputs.
        size: Width and height of the generated image in pixels; None where no input sets it.
    """
    inputs: dict[str, Any] = {}
    if conditions.ip_adapter_image is not None:
        inputs["ip_adapter_image"] = conditions.ip_adapter_image
    if size is None:
        return inputs

    def resized(image: Image.Image) -> Image.Image:
        return image if image.size == size else image.resize(size)

    if conditions.image is not None:
        inputs["image"] = resized(conditions.image)
    if conditions.mask is not None:
        inputs["mask_image"] = resized(conditions.mask.convert("L"))
    if conditions.strength is not None:
        inputs["strength"] = conditions.strength
    if conditions.control_image is not None:
        name = "image" if conditions.image is None else "control_image"
        inputs[name] = resized(conditions.control_image)
    return inputs


def _multiple(side: int, scale: float, step: int) -> int:
    """Return a scaled side as a multiple of `step`: the nearest one, or the one below if the side
    is not scaled."""
    if scale == 1:
        return max(step, side // step * step)
    return max(step, round(side * scale / step) * step)
