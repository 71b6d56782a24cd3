"""Latents and prompt embeddings, computed once and kept on the disk.

    <cache>/latents/<key>/   the VAE posterior's mean and std of every crop and flip, of one shape
    <cache>/masks/<key>/     the masks of the same crops and flips, where masks are asked for
    <cache>/holes/<key>/     what a base that inpaints sees of the same crops and flips
    <cache>/prompts/<key>/   the text encoder's output for every distinct caption, and for ""

A key is a hash of everything that affects the bytes. Captions are not part of the latents' key,
nor the resolution of the prompts'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.cached_dataset import CachedDataset, Part
from hublora.data.config import DataConfig
from hublora.data.crops import arrange
from hublora.data.inpaint_masks import EncodeImages
from hublora.data.latent_cache import FORMAT, BucketCache, key_of
from hublora.data.row_file import count_done, open_rows
from hublora.data.source import Source
from hublora.data.tags import Tags

if TYPE_CHECKING:
    from torch import Tensor

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
) -> CachedDataset:
    """Return the encoded images and captions of `source`, computing what is not cached yet.

    A process that dies loses at most a second of work; the next call goes on and ends in the
    same bytes. Several processes may call this at once: one computes, the others wait.

    Args:
        size: (h, w) of the images in pixels; of the square that the buckets are as large as.
        key_parts: What decides both encoders' output: family, base commit, …
        encode_images: float32 [B, 3, h, w] in [-1, 1] -> the posterior's mean and std, each
            [B, C, h', w']. Called only if latents are missing, so it may load the VAE itself.
        encode_prompts: B texts -> named tensors [B, …], padded to one length. Called only if
            prompts are missing. None: captions are encoded in training instead.
        batch_size: Images, and texts, of one call.
        progress: Told (done, total) in encoded images and texts, whenever done changes.
        image_key: What decides the latents alone: the VAE's dtype, …
        prompt_key: What decides the prompts alone: their length, the text encoder's dtype, …
        bucket_step: What the sides of buckets are multiples of; None: one shape for all.
        inpaints: Whether the base sees masks and what surrounds them.

    Raises:
        DataError: The disk is full or cannot be written, or an image changed since it was
            surveyed.
    """
    buckets = arrange(source.examples, config, size, bucket_step)
    arranged = {} if bucket_step is None else {"buckets": [*size, bucket_step]}
    encoder = {**key_parts, **(image_key or {})}
    shelves = [BucketCache(source, config, bucket, arranged, encoder) for bucket in buckets]
    tags = Tags.of(config, cached=encode_prompts is not None)
    captions = [example.captions for example in source.examples]
    texts = tags.texts(chain.from_iterable(captions)) if encode_prompts else []
    about = {"format": FORMAT, **key_parts, **(prompt_key or {}), "texts": texts}
    prompts_at = config.cache_root / "prompts" / key_of(about)
    tell = _Teller(progress, sum(shelf.rows for shelf in shelves) + len(texts))
    tell(sum(shelf.done for shelf in shelves) + count_done(prompts_at, len(texts)))

    parts, reused = [], True
    for shelf in shelves:
        latents, there = shelf.latents(encode_images, batch_size, tell.add)
        masks = shelf.masks(latents["mean"], batch_size)
        holes = shelf.holes(encode_images, batch_size) if inpaints else None
        parts.append(Part(shelf.bucket, latents["mean"], latents["std"], masks, holes))
        reused = reused and there
    prompts = None
    if encode_prompts is not None:
        prompts, there = _open_prompts(prompts_at, about, encode_prompts, batch_size, tell)
        reused = reused and there
    return CachedDataset(
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


def _open_prompts(
    folder: Path,
    about: Mapping[str, Any],
    encode_prompts: EncodePrompts,
    batch_size: int,
    tell: _Teller,
) -> tuple[dict[str, Tensor], bool]:
    """Return what the texts of `about` are encoded into, and whether it was there already."""
    texts: Sequence[str] = about["texts"]

    def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
        for start in range(first, len(texts), batch_size):
            batch = list(texts[start : start + batch_size])
            yield encode_prompts(batch)
            tell.add(len(batch))

    return open_rows(folder, len(texts), batch_size, about, produce)


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
