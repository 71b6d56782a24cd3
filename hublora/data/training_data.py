"""What a training step reads: latents and prompts by index, from memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.data.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor


class TrainingData:
    """Encoded pictures and captions. Draws nothing: the caller says which variant and caption.

    Attributes:
        captions: For each example, one or more.
        reused: True if nothing had to be encoded.
        folders: Where the cache lies.
    """

    def __init__(
        self,
        layout: Layout,
        captions: Sequence[tuple[str, ...]],
        mean: Tensor,
        std: Tensor,
        masks: Tensor | None,
        prompt_tensors: Mapping[str, Tensor] | None,
        texts: Sequence[str],
        reused: bool,
        folders: Sequence[Path],
    ) -> None:
        self.captions = captions
        self.reused = reused
        self.folders = folders
        self._layout = layout
        self._mean, self._std, self._masks = mean, std, masks
        self._prompts = prompt_tensors
        self._text_rows = {text: row for row, text in enumerate(texts)}

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.captions)

    @property
    def variants(self) -> int:
        """Crops times flips of each example; `latents` takes any number below it."""
        return self._layout.variants

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, h', w') of one latent."""
        return tuple(self._mean.shape[1:])

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the pictures in pixels."""
        return self._layout.size

    def latents(self, indices: Sequence[int], variants: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and std, each float32 [B, C, h', w'] on the CPU.

        Args:
            indices: Examples, in [0, len).
            variants: One for each index, in [0, self.variants).
        """
        import torch

        pairs = zip(indices, variants, strict=True)
        rows = torch.tensor([self._layout.row(index, variant) for index, variant in pairs])
        return self._mean.index_select(0, rows).float(), self._std.index_select(0, rows).float()

    @property
    def has_masks(self) -> bool:
        """Whether pictures come with masks."""
        return self._masks is not None

    def masks(self, indices: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return what is learned of each sample, float32 [B, 1, h', w'] in [0, 1] on the CPU.

        Args:
            indices: Examples, in [0, len).
            variants: One for each index, in [0, self.variants).
        """
        assert self._masks is not None, "masks are not asked for"
        import torch

        pairs = zip(indices, variants, strict=True)
        rows = torch.tensor([self._layout.row(index, variant) for index, variant in pairs])
        return self._masks.index_select(0, rows).float() / 255

    def frames(self, indices: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return where each sample was cut out of its picture, float32 [B, 6]; see `Layout.frame`.

        Args:
            indices: Examples, in [0, len).
            variants: One for each index, in [0, self.variants).
        """
        import torch

        rows = (self._layout.row(*pair) for pair in zip(indices, variants, strict=True))
        return torch.tensor([self._layout.frame(row) for row in rows], dtype=torch.float32)

    def caption(self, index: int, choice: int) -> str:
        """Return a caption of an example; a negative `choice` is the empty one.

        Args:
            choice: Any number: it is taken modulo how many captions the example has.
        """
        if choice < 0:
            return ""
        return self.captions[index][choice % len(self.captions[index])]

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
