"""One captioned image, one that is left out, and a list of them as a dataset states it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from hublora.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Example:
    """One captioned image; its bytes stay where they are until `open`.

    Attributes:
        name: What a person finds it by: a path in the folder, or a row.
        captions: One or more, cleaned. Empty only while the list is being read.
        size: (width, height) in pixels, upright; (0, 0) until it was surveyed.
        file: Opens its encoded bytes.
        focus: (x, y) in [0, 1] of width and height of what crops keep in their middle; None where
            there is no such thing.
        mask: Opens those of its mask; None where it has none or none are asked for.
        repeats: How often it is shown in one pass.
    """

    name: str
    captions: tuple[str, ...]
    file: Callable[[], IO[bytes]] = field(repr=False, compare=False)
    size: tuple[int, int] = (0, 0)
    focus: tuple[float, float] | None = None
    mask: Callable[[], IO[bytes]] | None = field(default=None, repr=False, compare=False)
    repeats: int = 1

    def open(self) -> Image:
        """Return the image, decoded and upright.

        Raises:
            DataError: It cannot be read; the message names it.
        """
        from hublora.data.images import load_image

        try:
            with self.file() as file:
                return load_image(file)
        except DataError as error:
            raise DataError(f"The image {self.name} {error.message}.") from error
        except OSError as error:
            raise DataError(f"The image {self.name} cannot be read: {error}.") from error


@dataclass(frozen=True)
class Skipped:
    """An image that is left out; `reason` is a clause that follows its name."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a dataset or a folder says it holds, before any image was decoded.

    Attributes:
        digest: Identity of the images' bytes, and nothing else.
        mask_digest: That of the masks; "" without masks.
        left_out: Images that lie there and are not on the list.
        notes: What a person should know of how it was read, as sentences.
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
