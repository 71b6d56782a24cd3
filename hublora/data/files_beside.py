"""Masks and reference images in a folder, which are about other images and none to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hublora.data import masks, references
from hublora.data.config import DataConfig


@dataclass(frozen=True)
class Beside:
    """The files that belong to images.

    Attributes:
        masks: Image -> its mask.
        references: Image -> its reference images in order.
    """

    masks: Mapping[Path, Path] = field(default_factory=dict)
    references: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [*self.masks.values(), *(one for some in self.references.values() for one in some)]

    @property
    def _reference_count(self) -> int:
        return sum(map(len, self.references.values()))

    def used(self, config: DataConfig) -> Beside:
        """Return the files that the settings use."""
        return Beside(
            self.masks if config.masks else {},
            self.references if config.references is not False else {},
        )

    def updated(self, other: Beside) -> Beside:
        """Return the files of both; those of `other` go first."""
        return Beside({**self.masks, **other.masks}, {**self.references, **other.references})

    def unused_notes(self, used: Beside) -> list[str]:
        """Return the sentences about files that were found and are not among those that are
        used."""
        notes = []
        if count := len(self.masks) - len(used.masks):
            found = "mask is" if count == 1 else "masks are"
            notes.append(
                f"{count} {found} beside the images and unused; --masks weights the loss by them."
            )
        if count := sum(map(len, self.references.values())) - sum(
            map(len, used.references.values())
        ):
            found = "reference image is" if count == 1 else "reference images are"
            notes.append(f"{count} {found} beside the images and unused: {UNUSED}.")
        return notes


UNUSED = "the base model takes none, or data.references is false"


def find_beside(images: Sequence[Path]) -> tuple[list[Path], Beside]:
    """Return the images without masks and references among them, and those.

    Raises:
        DataError: Two files are the same reference of an image.
    """
    rest, paired = references.pair_up(images)
    rest, masked = masks.pair_up(rest)
    return rest, Beside(masked, paired)
