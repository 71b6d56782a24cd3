"""Decodes, resizes and crops images into the arrays that a VAE encodes.

The arithmetic is that of torchvision's transforms on PIL images, in the order of the diffusers
scripts: Resize(shorter side), CenterCrop or RandomCrop, horizontal flip, ToTensor,
Normalize(0.5, 0.5). The VAE gets the same pixels, so that losses can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

from hublora.data.image_bytes import is_heic, without_text
from hublora.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Pillow's names of the formats that are opened. Not all are: EPS, for one, runs Ghostscript.
FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF"),
    *("JPEG2000", "JPEG_XL", "PPM", "TGA", "QOI", "ICO"),
)

# Twice Pillow's own warning level: a 179-megapixel image takes 0.5 GB once decoded.
MAX_PIXELS = 2 * (1024 * 1024 * 1024 // 4 // 3)

WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Crop:
    """Position of a crop along the side of the resized image that is longer than the target.

    Attributes:
        at: Position in [0, 1), 0 is top or left; None is the middle.
    """

    at: float | None = None

    def offset(self, slack: int) -> int:
        """Return the first row or column of the crop, in [0, slack].

        The middle is rounded half to even, as torchvision's CenterCrop does.
        """
        if self.at is None:
            return round(slack / 2.0)
        return min(int(self.at * (slack + 1)), slack)


def load_image(file: IO[bytes]) -> Image:
    """Return an image, decoded and rotated by its EXIF orientation.

    Args:
        file: Seekable file at its start.

    Raises:
        DataError: The file is no image, truncated, or too large to decode safely. The message is a
            clause such as "is empty (0 bytes)", to follow the image's name.
    """
    from PIL import Image, UnidentifiedImageError

    if not file.read(1):
        raise DataError("is empty (0 bytes)")
    file.seek(0)
    try:
        image: Image.Image = Image.open(without_text(file), formats=_known_formats())
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
    except UnidentifiedImageError as error:
        if is_heic(file):
            raise DataError("is HEIC, which needs pip install pillow-heif") from error
        raise DataError("is not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"has more than {MAX_PIXELS // 10**6} million pixels") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything for hostile bytes
        raise DataError(f"is damaged ({_first_line(error)})") from error
    if image.mode == "I" and image.format == "PNG":  # how Pillow before 11 decodes 16-bit greys
        image = image.convert("I;16")
    return _turn_upright(image)


def to_rgb(image: Image) -> Image:
    """Return `image` as 8-bit RGB, rotated by its EXIF orientation.

    Transparency becomes white. 16-bit, 32-bit and float greys are scaled by their full range,
    which Pillow's own conversion would clip.
    """
    image = _turn_upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        full = _full_scale(image)
        return _in_strips(image, lambda strip: _scale_grey(strip, full))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _in_strips(image, _on_white)
    return image.convert("RGB")


def covering_size(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest (width, height) to which an image is resized to cover `size` (h, w).

    One side equals the target's; the other is rounded down, as torchvision's Resize does.
    """
    target_height, target_width = size
    if width * target_height <= height * target_width:
        return target_width, max(int(target_width * height / width), target_height)
    return max(int(target_height * width / height), target_width), target_height


def resize(image: Image, size: tuple[int, int], interpolation: str = "lanczos") -> Image:
    """Return RGB `image` resized to `covering_size`."""
    from PIL.Image import Resampling

    covering = covering_size(image.width, image.height, size)
    if image.size == covering:
        return image
    return image.resize(covering, Resampling[interpolation.upper()])


def cut(image: Image, size: tuple[int, int], crop: Crop, flip: bool) -> np.ndarray:
    """Return a crop of a resized RGB image as float32 [3, h, w] in [-1, 1].

    Args:
        image: RGB image from `resize`.
        size: (h, w) of the crop in pixels.
        crop: Position of the crop.
        flip: Whether to mirror left and right after cropping.
    """
    import numpy as np

    height, width = size
    top, left = crop.offset(image.height - height), crop.offset(image.width - width)
    pixels = np.asarray(image)[top : top + height, left : left + width]
    if flip:
        pixels = pixels[:, ::-1]
    scaled = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return (scaled - np.float32(0.5)) / np.float32(0.5)


def prepare(
    image: Image,
    size: tuple[int, int],
    crop: Crop,
    flip: bool,
    interpolation: str = "lanczos",
) -> np.ndarray:
    """Return a crop of any image as float32 [3, h, w] in [-1, 1]."""
    return cut(resize(to_rgb(image), size, interpolation), size, crop, flip)


def _known_formats() -> tuple[str, ...]:
    """Return the FORMATS that this Pillow and its registered plugins can open."""
    from PIL import Image

    Image.init()
    if "HEIF" not in Image.OPEN and find_spec("pillow_heif"):
        import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def decoders() -> list[str]:
    """Return the version of Pillow and the formats that it and its plugins open here."""
    from PIL import __version__

    return [f"Pillow {__version__}", *_known_formats()]


def _turn_upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        turned = image.getexif().get(0x0112, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # a damaged EXIF block leaves the pixels intact
        return image


# Full scales of high-precision greys by mode: the smallest one that is not exceeded is used.
_FULL_SCALES: dict[str, tuple[float, ...]] = {
    "I": (255, 65535, 2**31 - 1),
    "F": (1, 255, 65535),
}


# Rows are converted this many pixels at a time: working copies of a large image in float64 or RGBA
# would take several GB.
_STRIP_PIXELS = 1 << 20


def _in_strips(image: Image, convert: Callable[[Image], Image]) -> Image:
    """Return `image` as RGB, converted a strip of rows at a time."""
    from PIL import Image

    converted = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        converted.paste(convert(strip).convert("RGB"), (0, top))
    return converted


def _strips(image: Image) -> Iterator[tuple[int, Image]]:
    """Yield strips of rows from the top, each with the number of its first row."""
    rows = max(_STRIP_PIXELS // max(image.width, 1), 1)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _on_white(image: Image) -> Image:
    from PIL import Image

    layer = image.convert("RGBA") if image.mode != "La" else image.convert("LA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer)


def _full_scale(image: Image) -> float:
    """Return the value that becomes white in a high-precision grey image."""
    if image.mode.startswith("I;16"):
        return 65535.0
    highest = max(float(_grey_values(strip).max(initial=0.0)) for _, strip in _strips(image))
    scales = _FULL_SCALES[image.mode[0]]
    return next((scale for scale in scales if highest <= scale), highest)


def _grey_values(image: Image) -> Any:
    """Return the values of a grey image as float64 [h, w], 0 where they are not finite."""
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    return np.nan_to_num(values, posinf=0.0, neginf=0.0)


def _scale_grey(image: Image, full: float) -> Image:
    import numpy as np
    from PIL import Image

    scaled = np.rint(_grey_values(image) * (255 / full))
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
