"""Latents and prompt embeddings, computed once and cached on disk.

    <cache>/latents/<key>/     mean and std of the VAE posterior of each crop and flip of a bucket
    <cache>/masks/<key>/       loss masks of the same crops and flips, with `data.masks`
    <cache>/inpainting/<key>/  inpainting masks and masked-image latents of the same crops and flips
    <cache>/references/<key>/  latents of the references of the same crops and flips of pairs
    <cache>/prompts/<key>/     the text encoders' output for each distinct caption, and for ""

A key is a hash of everything that affects the bytes. Captions are not part of the latents' key,
nor the resolution of the prompts'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.cached_dataset import CachedDataset, EncodedBucket, EncodedPrompts
from hublora.data.config import DataConfig
from hublora.data.crops import Resolution, assign_buckets
from hublora.data.inpaint_masks import EncodeImages
from hublora.data.latent_cache import FORMAT, BucketCache, key_of
from hublora.data.pair_cache import PairCache, ReferenceEncoders
from hublora.data.row_file import count_done, open_rows
from hublora.data.source import Source
from hublora.data.tags import Tags

if TYPE_CHECKING:
    from torch import Tensor

EncodePrompts = Callable[[list[str]], "Mapping[str, Tensor]"]
Count = Callable[[int, int], None]
Reword = Callable[[str], str]


@dataclass(frozen=True)
class Encoders:
    """The functions that encode images and prompts, and the keys of their output.

    Attributes:
        images: float32 [B, 3, h, w] in [-1, 1] -> mean and std of the VAE posterior, each
            [B, C, h', w'], or no std to use its mode. Called only if latents are missing, so it may
            load the VAE itself.
        prompts: B texts -> named tensors [B, …], padded to one length. Called only if prompt
            embeddings are missing. None: captions are encoded during training instead.
        image_key: JSON values that determine the output of `images`: base, commit, dtype, …
        prompt_key: JSON values that determine the output of `prompts`: base, commit, length, …
        batch_size: Images, or texts, in one call, at least 1.
        inpaints: Whether inpainting masks and masked-image latents are needed.
        references: Encodes the reference images of pairs; None where the base takes none.
    """

    images: EncodeImages
    prompts: EncodePrompts | None
    image_key: Mapping[str, Any] = field(default_factory=dict)
    prompt_key: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    inpaints: bool = False
    references: ReferenceEncoders | None = None


def build_cache(
    source: Source,
    config: DataConfig,
    encoders: Encoders,
    *,
    size: tuple[int, int],
    bucket_step: int | None = None,
    smaller: Sequence[Resolution] = (),
    reword: Reword | None = None,
    progress: Count | None = None,
) -> CachedDataset:
    """Return the encoded images and captions of `source`, computing what is not cached yet.

    A process that dies loses at most a second of work; the next call continues and ends in the
    same bytes. Several processes may call this at once: one computes, the others wait.

    Args:
        source: Images and captions.
        config: Crops, flips, tags and the cache's root folder.
        encoders: Encoding functions and their keys.
        size: (h, w) of the images in pixels; with buckets, of the square with their area.
        bucket_step: Multiple of which the sides of buckets are; None: all images have `size`.
        smaller: Further resolutions, ascending, as of `assign_buckets`.
        reword: Function from a caption to another one, of which the prompt embeddings are needed
            too; None needs no others.
        progress: Called with (done, total) images and texts whenever `done` changes.

    Raises:
        DataError: The disk is full or cannot be written, or an image changed since it was checked.
    """
    pairs = encoders.references
    reference_size = pairs.size if pairs else None
    buckets = assign_buckets(
        source.examples, config, size, bucket_step, smaller, reference_size=reference_size
    )
    squares = [*(one for one, _ in smaller), size]
    sizes = [squares[number] for number in sorted({bucket.resolution for bucket in buckets})]
    caches = [BucketCache(source, config, bucket, encoders.image_key) for bucket in buckets]
    tags = Tags.of(config, cached=encoders.prompts is not None)
    by_row = pairs is not None and pairs.instruction is not None
    texts = cached_texts(source, config, reword) if encoders.prompts and not by_row else []
    about = {"format": FORMAT, **encoders.prompt_key, "texts": texts}
    prompt_folder = config.cache_root / "prompts" / key_of(about)
    counter = _Counter(progress, sum(cache.rows for cache in caches) + len(texts))
    counter(sum(cache.done for cache in caches) + count_done(prompt_folder, len(texts)))

    def texts_of_row(own: Sequence[str]) -> list[str]:
        found = [text for text in tags.texts(own) if text or config.caption_dropout]
        return found if reword is None else list(dict.fromkeys([*found, *map(reword, found)]))

    encoded, reused = [], True
    for cache in caches:
        one, cached = _open_bucket(cache, encoders, counter)
        if pairs is not None and cache.bucket.references:
            side = squares[cache.bucket.resolution][0]
            one = _with_references(one, PairCache(cache, pairs, side), encoders, texts_of_row)
        encoded.append(one)
        reused = reused and cached
    prompts = None
    if encoders.prompts is not None and texts:
        tensors, cached = _open_prompts(prompt_folder, about, encoders, counter)
        prompts = EncodedPrompts(texts, tensors)
        reused = reused and cached
    folders = [*(cache.folder for cache in caches), *([prompt_folder] if texts else [])]
    return CachedDataset(encoded, source.examples, sizes, tags, prompts, reused, folders)


def cached_texts(source: Source, config: DataConfig, reword: Reword | None = None) -> list[str]:
    """Return the distinct texts whose prompt embeddings are cached, "" among them; arguments as of
    `build_cache`."""
    captions = chain.from_iterable(example.captions for example in source.examples)
    texts = Tags.of(config, cached=True).texts(captions)
    return texts if reword is None else list(dict.fromkeys([*texts, *map(reword, texts)]))


def _open_bucket(
    cache: BucketCache, encoders: Encoders, counter: _Counter
) -> tuple[EncodedBucket, bool]:
    """Return the encoded images of a bucket, and whether their latents were cached already."""
    size = encoders.batch_size
    latents, cached = cache.latents(encoders.images, size, counter.add)
    masks = cache.masks(latents["mean"], size)
    inpainting = cache.inpainting(encoders.images, size) if encoders.inpaints else None
    return EncodedBucket(
        cache.bucket, latents["mean"], latents.get("std"), masks, inpainting
    ), cached


def _with_references(
    encoded: EncodedBucket,
    cache: PairCache,
    encoders: Encoders,
    texts_of: Callable[[Sequence[str]], Sequence[str]],
) -> EncodedBucket:
    """Return a bucket with the latents of its references, and the prompt embeddings that depend on
    them."""
    latents = cache.latents(encoders.images, encoders.batch_size)
    prompts = None
    if cache.encoders.instruction is not None:
        prompts = cache.prompts(texts_of, encoders.prompt_key)
    return replace(encoded, references=latents, prompts=prompts)


def _open_prompts(
    folder: Path, about: Mapping[str, Any], encoders: Encoders, counter: _Counter
) -> tuple[dict[str, Tensor], bool]:
    """Return the prompt embeddings of the texts of `about`, and whether they were cached."""
    texts: Sequence[str] = about["texts"]
    encode, size = encoders.prompts, encoders.batch_size
    assert encode is not None, "prompts are encoded during training"

    def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
        for start in range(first, len(texts), size):
            batch = list(texts[start : start + size])
            yield encode(batch)
            counter.add(len(batch))

    return open_rows(folder, len(texts), size, about, produce)


class _Counter:
    """Counts encoded images and texts and reports each change."""

    def __init__(self, progress: Count | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, done: int) -> None:
        self.done = done
        if self.progress:
            self.progress(done, self.total)

    def add(self, count: int) -> None:
        self(min(self.done + count, self.total))
