"""Captioned images, skipped images, and the listing of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from hublora.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Example:
    """One captioned image, which `open` reads and decodes.

    Attributes:
        name: Path inside the folder, or "row N" of a table.
        captions: Cleaned captions, at least one once the dataset is listed.
        file: Opens the encoded image for reading.
        size: (width, height) in pixels, upright; (0, 0) until the image was checked.
        crop_center: Point that crops are centred on, (x, y) in [0, 1] of width and height; None
            leaves crops random or in the middle.
        mask: Opens the encoded mask for reading; None without a mask or without `data.masks`.
        repeats: How often the image occurs in an epoch, at least 1.
        digest: Hash of the encoded image, 64 hexadecimal digits; "" for an image of a Hub dataset,
            whose commit is its hash.
        references: Open the encoded reference images of a pair for reading, in order; empty without
            any or without `data.references`.
        reference_sizes: (width, height) of each in pixels, upright; empty until they were checked.
    """

    name: str
    captions: tuple[str, ...]
    file: Callable[[], IO[bytes]] = field(repr=False, compare=False)
    size: tuple[int, int] = (0, 0)
    crop_center: tuple[float, float] | None = None
    mask: Callable[[], IO[bytes]] | None = field(default=None, repr=False, compare=False)
    repeats: int = 1
    digest: str = field(default="", repr=False, compare=False)
    references: tuple[Callable[[], IO[bytes]], ...] = field(default=(), repr=False, compare=False)
    reference_sizes: tuple[tuple[int, int], ...] = ()

    def open(self) -> Image:
        """Return the image, decoded and upright.

        Raises:
            DataError: The image cannot be read; the message has its name.
        """
        from hublora.data.images import load_image

        try:
            with self.file() as file:
                return load_image(file)
        except DataError as error:
            raise DataError(f"The image {self.name} {error.message}.", error.hint) from error
        except OSError as error:
            raise DataError(f"The image {self.name} cannot be read: {error}.") from error


@dataclass(frozen=True)
class Skipped:
    """An image that is left out.

    Attributes:
        name: Path inside the folder, or "row N" of a table.
        reason: Clause that follows the name in a sentence, such as "has no caption".
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The images and captions of a dataset or folder, before any image was decoded.

    Attributes:
        id: Repo id of the dataset, or the name of the folder or archive.
        revision: Commit of the dataset, 40 hexadecimal digits; None for a folder or archive.
        license: Licence on the dataset's card; None where it names none.
        image_column: Column with the images.
        caption_column: Column with the captions; None where all get the default caption.
        digest: Hash of the images' names and bytes.
        examples: Images in a fixed order.
        left_out: Images of the folder that are not listed in its metadata or cannot be captioned.
        notes: Sentences for the log about how the dataset was read.
        mask_digest: Hash of the masks' names and bytes; "" without masks.
        reference_digest: Hash of the reference images' names and bytes; "" without any.
        references_from: Place of the reference images, such as "column 'control'"; None without
            any.
        captions_from: Place of the captions, such as "column 'text' of metadata.csv"; None
            where all images get the default caption.
    """

    id: str
    revision: str | None
    license: str | None
    image_column: str
    caption_column: str | None
    digest: str
    examples: Sequence[Example]
    left_out: Sequence[Skipped] = ()
    notes: Sequence[str] = ()
    mask_digest: str = ""
    reference_digest: str = ""
    references_from: str | None = None
    captions_from: str | None = None
