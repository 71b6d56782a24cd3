"""The encoded dataset that a training step reads from memory-mapped files, by index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.data.crops import Bucket
from hublora.data.examples import Example
from hublora.data.pair_cache import RowPrompts
from hublora.data.tags import Tags

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EncodedBucket:
    """The cached latents and masks of one bucket.

    Attributes:
        bucket: The examples in it, and the row of each of their variants.
        mean: Mean of the VAE posterior, [rows, C, h', w'].
        std: Standard deviation of the VAE posterior, [rows, C, h', w']; None for its mode.
        masks: Loss masks, uint8 [rows, 1, h', w']; None unless `data.masks` is set.
        inpainting: M inpainting masks of each row, `mask` uint8 [rows · M, 1, h', w'], and
            `masked_latents` [rows · M, C, h', w']; None unless the base inpaints.
        references: Latents of the first, second, … reference image, each [rows, C, h'', w''].
        prompts: Prompt embeddings of the rows, where the text encoder sees the references.
    """

    bucket: Bucket
    mean: Tensor
    std: Tensor | None
    masks: Tensor | None = None
    inpainting: Mapping[str, Tensor] | None = None
    references: Sequence[Tensor] = ()
    prompts: RowPrompts | None = None


@dataclass(frozen=True)
class EncodedPrompts:
    """The cached prompt embeddings.

    Attributes:
        texts: Distinct texts; text n is row n of each tensor.
        tensors: Name -> tensor [texts, …].
    """

    texts: Sequence[str]
    tensors: Mapping[str, Tensor]


class CachedDataset:
    """Cached latents, masks and prompt embeddings, by item, variant and caption.

    An item is an example at one resolution; with a single resolution, items are the examples. Has
    no random state: the caller chooses variants and captions. The indices of one call are those of
    items of one bucket.

    Attributes:
        image_of: Index of each item's example; items are in the order of resolutions, then of
            examples.
        sides_of: Side in pixels of each item's resolution.
        captions: Captions of each item, at least one.
        repeats: How often each item occurs in an epoch, at least 1.
        reused: Whether everything was in the cache already.
        folders: Cache folders of the latents and of the prompt embeddings.
        sizes: (h, w) of the images in pixels at each resolution that has items, ascending; with
            buckets, of the square with their area.
        size: The largest of them.
        bucket_of: Index in `bucket_sizes` of each item's bucket.
        bucket_sizes: (h, w) of each bucket in pixels.
    """

    def __init__(
        self,
        buckets: Sequence[EncodedBucket],
        examples: Sequence[Example],
        sizes: Sequence[tuple[int, int]],
        tags: Tags,
        prompts: EncodedPrompts | None,
        reused: bool,
        folders: Sequence[Path],
    ) -> None:
        places = sorted(
            (encoded.bucket.resolution, example, number, place)
            for number, encoded in enumerate(buckets)
            for place, example in enumerate(encoded.bucket.members)
        )
        self.image_of = [example for _, example, _, _ in places]
        sides = dict(zip(sorted({one for one, *_ in places}), sizes, strict=True))
        self.sides_of = [sides[resolution][0] for resolution, *_ in places]
        self.captions = [examples[index].captions for index in self.image_of]
        self.repeats = [examples[index].repeats for index in self.image_of]
        self.sizes, self.size = sizes, sizes[-1]
        self.reused = reused
        self.folders = folders
        self._buckets = buckets
        self._tags = tags
        self._prompts = prompts.tensors if prompts else None
        self._text_rows = {text: row for row, text in enumerate(prompts.texts if prompts else ())}
        self.bucket_sizes = [one.bucket.size for one in buckets]
        self.bucket_of = [number for _, _, number, _ in places]
        self._places = [place for _, _, _, place in places]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.captions)

    @property
    def variants(self) -> int:
        """Largest number of crops times flips of an example."""
        return max(one.bucket.plan.variants for one in self._buckets)

    @property
    def has_masks(self) -> bool:
        """Whether the loss is weighted by the images' masks."""
        return self._buckets[0].masks is not None

    def shape(self, index: int) -> tuple[int, ...]:
        """Return (C, h', w') of the latents of an item."""
        return tuple(self._buckets[self.bucket_of[index]].mean.shape[1:])

    def latents(
        self, indices: Sequence[int], variants: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Return mean and std of the VAE posterior, each float32 [B, C, h', w'] on the CPU; no std
        if the family uses the posterior's mode.

        Args:
            indices: Items, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
        """
        import torch

        encoded, numbers = self._rows(indices, variants)
        rows = torch.tensor(numbers)
        mean, std = encoded.mean.index_select(0, rows).float(), encoded.std
        return mean, None if std is None else std.index_select(0, rows).float()

    def masks(self, indices: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return the loss mask of each sample, float32 [B, 1, h', w'] in [0, 1] on the CPU.

        Args:
            indices: Items, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
        """
        import torch

        encoded, numbers = self._rows(indices, variants)
        assert encoded.masks is not None, "data.masks is not set"
        return encoded.masks.index_select(0, torch.tensor(numbers)).float() / 255

    @property
    def has_inpaint_masks(self) -> bool:
        """Whether the base inpaints and masked-image latents are cached."""
        return self._buckets[0].inpainting is not None

    def inpaint_masks(
        self, indices: Sequence[int], variants: Sequence[int], choices: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the inpainting mask and masked-image latents of each sample, float32, CPU.

        Args:
            indices: Items, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
            choices: Number of a cached mask of the crop, one for each index; taken modulo how
                many there are.

        Returns:
            The mask, [B, 1, h', w'], 1 where the base generates; and the latents of the image
            without that area, [B, C, h', w'].
        """
        import torch

        encoded, numbers = self._rows(indices, variants)
        assert encoded.inpainting is not None, "the base does not inpaint"
        mask, masked_latents = encoded.inpainting["mask"], encoded.inpainting["masked_latents"]
        each = len(mask) // encoded.bucket.plan.rows
        rows = torch.tensor(
            [row * each + choice % each for row, choice in zip(numbers, choices, strict=True)]
        )
        return mask.index_select(0, rows).float(), masked_latents.index_select(0, rows).float()

    def references(self, indices: Sequence[int], variants: Sequence[int]) -> list[Tensor]:
        """Return the latents of each reference image, float32 [B, C, h'', w''] on the CPU, in their
        order; empty without references.

        Args:
            indices: Examples, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
        """
        import torch

        encoded, numbers = self._rows(indices, variants)
        rows = torch.tensor(numbers)
        return [one.index_select(0, rows).float() for one in encoded.references]

    def size_conditioning(self, indices: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return SDXL's size conditioning of each sample, float32 [B, 6] in pixels.

        The six values are those of `CropPlan.size_conditioning`.

        Args:
            indices: Items, in [0, len), of one bucket.
            variants: One for each index, in [0, self.variants).
        """
        import torch

        encoded, rows = self._rows(indices, variants)
        plan = encoded.bucket.plan
        return torch.tensor([plan.size_conditioning(row) for row in rows], dtype=torch.float32)

    def _rows(
        self, indices: Sequence[int], variants: Sequence[int]
    ) -> tuple[EncodedBucket, list[int]]:
        """Return the bucket of the items, and the row of each variant in it."""
        number = self.bucket_of[indices[0]]
        assert all(self.bucket_of[index] == number for index in indices), "several buckets"
        encoded = self._buckets[number]
        row, places = encoded.bucket.plan.row, self._places
        pairs = zip(indices, variants, strict=True)
        return encoded, [row(places[index], variant) for index, variant in pairs]

    def caption(self, index: int, choice: int) -> str:
        """Return a caption of an item.

        Args:
            index: Item, in [0, len).
            choice: -1 or less is the empty caption, and 0 the first caption unchanged. Any other
                number selects one of the captions and one of the variants of its tags.
        """
        if choice < 0:
            return ""
        captions = self.captions[index]
        variant, which = divmod(choice, len(captions))
        return self._tags.write(captions[which], variant) if choice else captions[0]

    def prompts(
        self,
        indices: Sequence[int],
        choices: Sequence[int],
        reword: Callable[[str], str] | None = None,
        variants: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Return the prompt embedding of each item's caption: name -> tensor [B, …], CPU.

        Args:
            indices: Items, in [0, len).
            choices: Caption of each index, numbered as in `caption`.
            reword: Applied to each caption, as `build_cache` was told; None leaves it.
            variants: One for each index, in [0, self.variants), for a text encoder that sees the
                references; None is the first of each.
        """
        import torch

        pairs = zip(indices, choices, strict=True)
        texts = [self.caption(index, choice) for index, choice in pairs]
        texts = texts if reword is None else [reword(text) for text in texts]
        if (own := self._buckets[self.bucket_of[indices[0]]].prompts) is not None:
            _, numbers = self._rows(indices, variants or [0] * len(indices))
            rows = torch.tensor([own.rows[pair] for pair in zip(numbers, texts, strict=True)])
            return {name: tensor.index_select(0, rows) for name, tensor in own.tensors.items()}
        assert self._prompts is not None, "the captions of this run are not cached"
        rows = torch.tensor([self._text_rows[text] for text in texts])
        return {name: tensor.index_select(0, rows) for name, tensor in self._prompts.items()}
