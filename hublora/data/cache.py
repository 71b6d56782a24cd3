"""Latents and prompt embeddings, computed once and kept on the disk.

    <cache>/latents/<key>/   the VAE posterior's mean and std of every crop and flip, of one shape
    <cache>/masks/<key>/     the masks of the same crops and flips, where masks are asked for
    <cache>/holes/<key>/     what a base that inpaints sees of the same crops and flips
    <cache>/prompts/<key>/   the text encoder's output for every distinct caption, and for ""

A key is a hash of everything that affects the bytes. Captions are not part of the latents' key,
nor the resolution of the prompts'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.config import DataConfig
from hublora.data.holes import holes_of_each, produce_holes
from hublora.data.layout import Bucket, arrange
from hublora.data.masks import mask_of_row
from hublora.data.pixels import batches_of_pixels
from hublora.data.rows import count_done, open_rows
from hublora.data.source import Source
from hublora.data.tags import Tags
from hublora.data.training_data import Part, TrainingData
from hublora.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# Raised whenever the same inputs would give other rows than before.
FORMAT = 1

EncodeImages = Callable[["Tensor"], "tuple[Tensor, Tensor]"]
EncodePrompts = Callable[[list[str]], "Mapping[str, Tensor]"]
Progress = Callable[[int, int], None]


def build_cache(
    source: Source,
    config: DataConfig,
    *,
    size: tuple[int, int],
    key_parts: Mapping[str, Any],
    encode_images: EncodeImages,
    encode_prompts: EncodePrompts | None,
    batch_size: int = 1,
    progress: Progress | None = None,
    image_key: Mapping[str, Any] | None = None,
    prompt_key: Mapping[str, Any] | None = None,
    bucket_step: int | None = None,
    inpaints: bool = False,
) -> TrainingData:
    """Return the encoded pictures and captions of `source`, computing what is not cached yet.

    A process that dies loses at most a second of work; the next call goes on and ends in the
    same bytes. Several processes may call this at once: one computes, the others wait.

    Args:
        size: (h, w) of the pictures in pixels; of the square that the buckets are as large as.
        key_parts: What decides both encoders' output: family, base commit, …
        encode_images: float32 [B, 3, h, w] in [-1, 1] -> the posterior's mean and std, each
            [B, C, h', w']. Called only if latents are missing, so it may load the VAE itself.
        encode_prompts: B texts -> named tensors [B, …], padded to one length. Called only if
            prompts are missing. None: captions are encoded in training instead.
        batch_size: Pictures, and texts, of one call.
        progress: Told (done, total) in encoded pictures and texts, whenever done changes.
        image_key: What decides the latents alone: the VAE's dtype, …
        prompt_key: What decides the prompts alone: their length, the text encoder's dtype, …
        bucket_step: What the sides of buckets are multiples of; None: one shape for all.
        inpaints: Whether the base sees masks and what surrounds them.

    Raises:
        DataError: The disk is full or cannot be written, or a picture changed since it was
            surveyed.
    """
    buckets = arrange(source.examples, config, size, bucket_step)
    tags = Tags.of(config, cached=encode_prompts is not None)
    captions = [example.captions for example in source.examples]
    texts = tags.texts(chain.from_iterable(captions)) if encode_prompts else []
    prompt_about = {"format": FORMAT, **key_parts, **(prompt_key or {}), "texts": texts}
    prompts_at = config.cache_root / "prompts" / _key(prompt_about)
    shelves = []
    for bucket in buckets:
        about = _describe_images(source, config, bucket)
        if bucket_step is not None:
            about["buckets"] = [*size, bucket_step]
        shelves.append(_Shelf(bucket, about, {**key_parts, **(image_key or {})}, config))
    tell = _Teller(progress, sum(one.bucket.layout.rows for one in shelves) + len(texts))
    tell(sum(shelf.done for shelf in shelves) + count_done(prompts_at, len(texts)))

    parts, prompts, reused = [], None, True
    for shelf in shelves:
        latents, there = shelf.open(source, config, batch_size, encode_images, tell)
        masks = _open_masks(source, config, shelf, latents["mean"], batch_size)
        holes = shelf.open_holes(source, config, batch_size, encode_images) if inpaints else None
        parts.append(Part(shelf.bucket, latents["mean"], latents["std"], masks, holes))
        reused = reused and there
    if encode_prompts is not None:
        prompts, there = open_rows(
            prompts_at,
            len(texts),
            batch_size,
            prompt_about,
            lambda first: _prompt_rows(texts[first:], batch_size, encode_prompts, tell),
        )
        reused = reused and there
    return TrainingData(
        parts=parts,
        size=size,
        captions=captions,
        repeats=[example.repeats for example in source.examples],
        tags=tags,
        prompt_tensors=prompts,
        texts=texts,
        reused=reused,
        folders=[*(shelf.folder for shelf in shelves), *([prompts_at] if texts else [])],
    )


@dataclass(frozen=True)
class _Shelf:
    """Where the latents of one bucket lie.

    Attributes:
        bucket: Which pictures.
        about: What decides which rows there are, and their pixels.
        encoder: What decides how they are encoded.
        config: Where the cache is.
    """

    bucket: Bucket
    about: Mapping[str, Any]
    encoder: Mapping[str, Any]
    config: DataConfig

    @property
    def folder(self) -> Path:
        return self.config.cache_root / "latents" / _key({**self.about, **self.encoder})

    @property
    def done(self) -> int:
        """Rows that need not be encoded any more."""
        return count_done(self.folder, self.bucket.layout.rows)

    def open(
        self,
        source: Source,
        config: DataConfig,
        batch_size: int,
        encode_images: EncodeImages,
        tell: _Teller,
    ) -> tuple[Mapping[str, Tensor], bool]:
        """Return mean and std of every row, and whether they were there already."""
        examples, layout = self.bucket.pick(source.examples), self.bucket.layout
        about = {**self.about, **self.encoder, "of": source.id, "revision": source.revision}

        def produce(first: int) -> Iterator[dict[str, Tensor]]:
            batches = batches_of_pixels(examples, config, layout, first, batch_size)
            return _latent_rows(batches, encode_images, tell)

        return open_rows(self.folder, layout.rows, batch_size, about, produce)

    def open_holes(
        self, source: Source, config: DataConfig, batch_size: int, encode_images: EncodeImages
    ) -> Mapping[str, Tensor]:
        """Return masks and surroundings of every row, as `hublora.data.holes` has them."""
        examples, layout = self.bucket.pick(source.examples), self.bucket.layout
        each = holes_of_each(config)
        drawn = source.masks_fingerprint if config.masks else f"{each} random, seed {config.seed}"
        about = {**self.about, **self.encoder, "holes": drawn}
        produce = produce_holes(examples, config, layout, batch_size, encode_images)
        folder = config.cache_root / "holes" / _key(about)
        return open_rows(folder, layout.rows * each, batch_size * each, about, produce)[0]


def _latent_rows(
    batches: Iterator[Tensor], encode_images: EncodeImages, tell: _Teller
) -> Iterator[dict[str, Tensor]]:
    for pixels in batches:
        mean, std = encode_images(pixels)
        _check_finite(mean, std)
        yield {"mean": mean, "std": std}
        tell.add(len(pixels))


def _open_masks(
    source: Source, config: DataConfig, shelf: _Shelf, latents: Tensor, batch_size: int
) -> Tensor | None:
    """Return the masks at the latents' size, uint8 [rows, 1, h', w'], None without masks."""
    if not config.masks:
        return None
    import torch

    examples, layout = shelf.bucket.pick(source.examples), shelf.bucket.layout
    size = (int(latents.shape[-2]), int(latents.shape[-1]))
    about = {**shelf.about, "masks": source.masks_fingerprint, "latent size": size}

    def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
        for row in range(first, layout.rows, batch_size):
            rows = range(row, min(row + batch_size, layout.rows))
            shown = [mask_of_row(examples, layout, one, size) for one in rows]
            yield {"mask": torch.stack([torch.tensor(mask) for mask in shown])[:, None]}

    folder = config.cache_root / "masks" / _key(about)
    return open_rows(folder, layout.rows, batch_size, about, produce)[0]["mask"]


def _prompt_rows(
    texts: Sequence[str], batch_size: int, encode_prompts: EncodePrompts, tell: _Teller
) -> Iterator[Mapping[str, Tensor]]:
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        yield encode_prompts(batch)
        tell.add(len(batch))


def _check_finite(mean: Tensor, std: Tensor) -> None:
    """Stop at once where some VAEs overflow in float16, and training would see only NaN."""
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise ConfigError(
            f"The VAE returned infinite values in {str(mean.dtype).removeprefix('torch.')}.",
            "Let it run in bfloat16 or float32.",
        )


class _Teller:
    """Counts what is done and passes it on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, done: int) -> None:
        self.done = done
        if self.progress:
            self.progress(done, self.total)

    def add(self, count: int) -> None:
        self(min(self.done + count, self.total))


def _describe_images(source: Source, config: DataConfig, bucket: Bucket) -> dict[str, Any]:
    """Return everything on the pictures' side that affects the latents."""
    layout, crops = bucket.layout, "middle"
    if any(len(one) > 1 for one in layout.crops):
        crops = f"{config.crop_variants} random, seed {config.seed}"
    if any(source.examples[index].focus for index in bucket.members):
        crops = f"around {_key({'focus': [one.focus for one in source.examples]})}, else {crops}"
    return {
        "format": FORMAT,
        "pictures": source.pictures_fingerprint,
        "size": list(layout.size),
        "crops": crops,
        "flips": layout.flips,
        "interpolation": config.interpolation,
    }


def _key(about: Mapping[str, Any]) -> str:
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
