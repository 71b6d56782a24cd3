"""What a training step reads: latents and prompts by index, from memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.data.crops import Bucket
from hublora.data.tags import Tags

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """The images of one shape, encoded.

    Attributes:
        bucket: Which they are, and in which row each variant lies.
        mean: Of the posterior, [rows, C, h', w'].
        std: The same.
        masks: uint8 [rows, 1, h', w'], None without masks.
        holes: `hole` and `around` of each row (`hublora.data.inpaint_masks`), [rows · M, …]; None
            unless the base inpaints.
    """

    bucket: Bucket
    mean: Tensor
    std: Tensor
    masks: Tensor | None = None
    holes: Mapping[str, Tensor] | None = None


class CachedDataset:
    """Encoded images and captions. Draws nothing: the caller says which variant and caption.

    Whatever takes several indices takes those of one bucket at a time.

    Attributes:
        captions: For each example, one or more.
        repeats: For each example, how often it is shown in one pass.
        reused: True if nothing had to be encoded.
        folders: Where the cache lies.
        size: (h, w) of the images in pixels; of the square that the buckets are as large as.
        bucket_of: For each example, the number of its bucket in `bucket_sizes`.
        bucket_sizes: (h, w) in pixels of each shape that there is.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        size: tuple[int, int],
        captions: Sequence[tuple[str, ...]],
        repeats: Sequence[int],
        tags: Tags,
        prompt_tensors: Mapping[str, Tensor] | None,
        texts: Sequence[str],
        reused: bool,
        folders: Sequence[Path],
    ) -> None:
        self.captions = captions
        self.repeats = repeats
        self._tags = tags
        self.reused = reused
        self.folders = folders
        self.size = size
        self._parts = parts
        self._prompts = prompt_tensors
        self._text_rows = {text: row for row, text in enumerate(texts)}
        self.bucket_sizes = [part.bucket.size for part in parts]
        self.bucket_of = [0] * len(captions)
        self._places = [0] * len(captions)
        for number, part in enumerate(parts):
            for place, index in enumerate(part.bucket.members):
                self.bucket_of[index], self._places[index] = number, place

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.captions)

    @property
    def variants(self) -> int:
        """Crops times flips of each example; `latents` takes any number below it."""
        return max(part.bucket.layout.variants for part in self._parts)

    @property
    def has_masks(self) -> bool:
        """Whether images come with masks."""
        return self._parts[0].masks is not None

    def shape(self, index: int) -> tuple[int, ...]:
        """Return (C, h', w') of the latents of an example."""
        return tuple(self._parts[self.bucket_of[index]].mean.shape[1:])

    def latents(self, indices: Sequence[int], variants: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and std, each float32 [B, C, h', w'] on the CPU.

        Args:
            indices: Examples, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
        """
        import torch

        part, numbers = self._rows(indices, variants)
        rows = torch.tensor(numbers)
        return part.mean.index_select(0, rows).float(), part.std.index_select(0, rows).float()

    def masks(self, indices: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return what is learned of each sample, float32 [B, 1, h', w'] in [0, 1] on the CPU.

        Args:
            indices: Examples, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
        """
        import torch

        part, numbers = self._rows(indices, variants)
        assert part.masks is not None, "masks are not asked for"
        return part.masks.index_select(0, torch.tensor(numbers)).float() / 255

    @property
    def has_holes(self) -> bool:
        """Whether the base inpaints."""
        return self._parts[0].holes is not None

    def holes(
        self, indices: Sequence[int], variants: Sequence[int], choices: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return what a base that inpaints sees of each sample, float32 on the CPU.

        Args:
            indices: Examples, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
            choices: Which of the masks; any numbers from 0.

        Returns:
            The mask, [B, 1, h', w'], 1 where it draws, and the latents around it, [B, C, h', w'].
        """
        import torch

        part, numbers = self._rows(indices, variants)
        assert part.holes is not None, "the base does not inpaint"
        hole, around = part.holes["hole"], part.holes["around"]
        each = len(hole) // part.bucket.layout.rows
        rows = torch.tensor(
            [row * each + choice % each for row, choice in zip(numbers, choices, strict=True)]
        )
        return hole.index_select(0, rows).float(), around.index_select(0, rows).float()

    def frames(self, indices: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return where each sample was cut out of its image, float32 [B, 6]; see `Layout.frame`.

        Args:
            indices: Examples, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
        """
        import torch

        part, rows = self._rows(indices, variants)
        layout = part.bucket.layout
        return torch.tensor([layout.frame(row) for row in rows], dtype=torch.float32)

    def _rows(self, indices: Sequence[int], variants: Sequence[int]) -> tuple[Part, list[int]]:
        """Return the part that the examples are in, and the row of each variant in it."""
        number = self.bucket_of[indices[0]]
        assert all(self.bucket_of[index] == number for index in indices), "several buckets"
        part = self._parts[number]
        row, places = part.bucket.layout.row, self._places
        return part, [row(places[i], variant) for i, variant in zip(indices, variants, strict=True)]

    def caption(self, index: int, choice: int) -> str:
        """Return a caption of an example.

        Args:
            index: The example.
            choice: Negative is the empty caption, and 0 the first one as it is. Any other number
                chooses one of the captions, and one of the ways in which its tags are written.
        """
        if choice < 0:
            return ""
        captions = self.captions[index]
        variant, which = divmod(choice, len(captions))
        return self._tags.write(captions[which], variant) if choice else captions[0]

    def prompts(self, indices: Sequence[int], choices: Sequence[int]) -> dict[str, Tensor]:
        """Return the encoded caption of each example, as named tensors [B, …] on the CPU.

        Args:
            indices: Examples, in [0, len).
            choices: One for each index, as in `caption`.
        """
        pairs = zip(indices, choices, strict=True)
        return self._encoded([self.caption(index, choice) for index, choice in pairs])

    def empty_prompt(self) -> dict[str, Tensor]:
        """Return the encoded empty caption, as named tensors [1, …]."""
        return self._encoded([""])

    def _encoded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        assert self._prompts is not None, "the captions of this run are not cached"
        import torch

        rows = torch.tensor([self._text_rows[text] for text in texts])
        return {name: tensor.index_select(0, rows) for name, tensor in self._prompts.items()}
