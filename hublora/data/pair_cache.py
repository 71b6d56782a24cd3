"""The cached reference images of pairs, and the prompt embeddings that depend on them.

References are encoded for each crop and flip of their image, with which they share both. Where the
text encoder sees them too, each of those rows has prompt embeddings of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hublora.data.crops import ReferenceSize
from hublora.data.inpaint_masks import EncodeImages
from hublora.data.latent_cache import BucketCache, key_of
from hublora.data.references import crop_reference, cropped_size, open_references
from hublora.data.row_file import open_rows
from hublora.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_FIELD = "reference"  # and the number of the reference, from 1
_SIZE = tuple[int, int]

# Text, references and number of tokens -> named tensors [1, …].
EncodeInstruction = Callable[[str, "Sequence[Image]", int], "Mapping[str, Tensor]"]
# Texts and sizes of references -> number of tokens of each text.
CountTokens = Callable[[Sequence[str], Sequence[_SIZE]], Sequence[int]]


@dataclass(frozen=True)
class ReferenceEncoders:
    """How a base model's family encodes the reference images of pairs.

    Attributes:
        size: Returns the width and height in which a reference is encoded.
        fit: Returns a reference, cropped like its image, in that size; both are given the side of
            the square with as many pixels as the image.
        instruction: Encodes a text beside references; None where the text encoder sees none.
        count_tokens: Counts the tokens of texts beside references, likewise.
    """

    size: ReferenceSize
    fit: Callable[[Image, int], Image]
    instruction: EncodeInstruction | None = None
    count_tokens: CountTokens | None = None


@dataclass(frozen=True)
class RowPrompts:
    """The prompt embeddings of a bucket whose texts were encoded beside references.

    Attributes:
        rows: (row of the bucket, text) -> row of each tensor.
        tensors: Name -> tensor [rows, …].
    """

    rows: Mapping[tuple[int, str], int]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class PairCache:
    """The cache folders of the references of one bucket.

    Attributes:
        bucket: Cache of the bucket's images.
        encoders: Encodes the references.
        side: Side in pixels of the square with as many pixels as the bucket's images.
    """

    bucket: BucketCache
    encoders: ReferenceEncoders
    side: int

    def latents(self, encode_images: EncodeImages, batch_size: int) -> list[Tensor]:
        """Return the latents of the first, second, … reference of all rows, each [rows, C, h, w].

        Args:
            encode_images: Called with float32 [B, 3, h, w] in [-1, 1]; its mean is taken.
            batch_size: References in one call, at least 1.
        """
        import torch

        cache, fit = self.bucket, self.encoders.fit
        count = len(cache.bucket.references)
        about = {**self._about(), **cache.encoder}

        def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
            for start in range(first, cache.rows, batch_size):
                numbers = range(start, min(start + batch_size, cache.rows))
                rows = [self._references(row) for row in numbers]
                fitted = [[_pixels(fit(one, self.side)) for one in row] for row in rows]
                yield {
                    f"{_FIELD}{place + 1}": encode_images(torch.stack(images))[0]
                    for place, images in enumerate(map(list, zip(*fitted, strict=True)))
                }

        folder = cache.config.cache_root / "references" / key_of(about)
        found, _ = open_rows(folder, cache.rows, batch_size, about, produce)
        return [found[f"{_FIELD}{place + 1}"] for place in range(count)]

    def prompts(
        self, texts_of: Callable[[Sequence[str]], Sequence[str]], key: Mapping[str, Any]
    ) -> RowPrompts:
        """Return the prompt embeddings of each row and each of its texts.

        Args:
            texts_of: Captions of an example -> its texts.
            key: JSON values that determine the text encoder's output.
        """
        cache, encode = self.bucket, self.encoders.instruction
        assert encode is not None, "the text encoder sees no references"
        plan, examples = cache.bucket.plan, cache.bucket.pick(cache.source.examples)
        pairs = [
            (row, text)
            for row in range(cache.rows)
            for text in texts_of(examples[plan.of_row(row)[0]].captions)
        ]
        length = self._longest(pairs)
        about = {**self._about(), **key, "length": length, "texts": [text for _, text in pairs]}

        def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
            seen: tuple[int, list[Image]] = (-1, [])
            for row, text in pairs[first:]:
                if seen[0] != row:
                    seen = (row, self._references(row))
                yield encode(text, seen[1], length)

        folder = cache.config.cache_root / "prompts" / key_of(about)
        tensors, _ = open_rows(folder, len(pairs), 1, about, produce)
        return RowPrompts({pair: number for number, pair in enumerate(pairs)}, tensors)

    def _longest(self, pairs: Sequence[tuple[int, str]]) -> int:
        """Return the largest number of tokens of a text beside the references of its row."""
        count = self.encoders.count_tokens
        assert count is not None, "the text encoder sees references"
        cache = self.bucket
        plan, examples = cache.bucket.plan, cache.bucket.pick(cache.source.examples)
        texts: dict[tuple[_SIZE, ...], dict[str, None]] = {}
        for row, text in pairs:
            one = examples[plan.of_row(row)[0]]
            sizes = tuple(cropped_size(one.size, size, plan.size) for size in one.reference_sizes)
            texts.setdefault(sizes, {})[text] = None
        return max(max(count(list(some), sizes)) for sizes, some in texts.items())

    def _references(self, row: int) -> list[Image]:
        """Return the references of a row, cropped and mirrored like its image.

        Raises:
            DataError: One changed since the images were checked.
        """
        plan = self.bucket.bucket.plan
        index, crop, flip = plan.of_row(row)
        example = self.bucket.bucket.pick(self.bucket.source.examples)[index]
        try:
            images = open_references(example)
        except DataError as error:
            raise DataError(f"The image {example.name} {error.message}.") from error
        return [crop_reference(one, example.size, plan.size, crop, flip) for one in images]

    def _about(self) -> dict[str, Any]:
        return {
            **self.bucket.pixels(),
            "references": self.bucket.source.references_fingerprint,
            "reference sizes": [list(size) for size in self.bucket.bucket.references],
        }


def _pixels(image: Image) -> Tensor:
    """Return float32 [3, h, w] in [-1, 1]."""
    import numpy as np
    import torch

    values = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy(np.ascontiguousarray(values * 2 - 1))
