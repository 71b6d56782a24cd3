"""Latents and prompt embeddings, computed once and kept on the disk.

    <cache>/latents/<key>/   the VAE posterior's mean and std of every crop and flip
    <cache>/masks/<key>/     the masks of the same crops and flips, where masks are asked for
    <cache>/prompts/<key>/   the text encoder's output for every distinct caption, and for ""

A key is a hash of everything that affects the bytes. Captions are not part of the latents' key,
nor the resolution of the prompts'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hublora.data.config import DataConfig
from hublora.data.layout import Layout, lay_out
from hublora.data.masks import mask_of_row
from hublora.data.rows import count_done, open_rows
from hublora.data.source import Source
from hublora.data.training_data import TrainingData
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
) -> TrainingData:
    """Return the encoded pictures and captions of `source`, computing what is not cached yet.

    A process that dies loses at most a second of work; the next call goes on and ends in the
    same bytes. Several processes may call this at once: one computes, the others wait.

    Args:
        size: (h, w) of the pictures in pixels.
        key_parts: What decides both encoders' output: family, base commit, …
        encode_images: float32 [B, 3, h, w] in [-1, 1] -> the posterior's mean and std, each
            [B, C, h', w']. Called only if latents are missing, so it may load the VAE itself.
        encode_prompts: B texts -> named tensors [B, …], padded to one length. Called only if
            prompts are missing. None: captions are encoded in training instead.
        batch_size: Pictures, and texts, of one call.
        progress: Told (done, total) in encoded pictures and texts, whenever done changes.
        image_key: What decides the latents alone: the VAE's dtype, …
        prompt_key: What decides the prompts alone: their length, the text encoder's dtype, …

    Raises:
        DataError: The disk is full or cannot be written, or a picture changed since it was
            surveyed.
    """
    layout = lay_out(source.examples, config, size)
    texts = _distinct_texts(source) if encode_prompts else []
    image_about = _describe_images(source, config, layout) | {**key_parts, **(image_key or {})}
    prompt_about = {"format": FORMAT, **key_parts, **(prompt_key or {})}
    latents_at = config.cache_root / "latents" / _key(image_about)
    prompts_at = config.cache_root / "prompts" / _key({**prompt_about, "texts": texts})
    tell = _Teller(progress, layout.rows + len(texts))
    tell(count_done(latents_at, layout.rows) + count_done(prompts_at, len(texts)))

    latents, latents_reused = open_rows(
        latents_at,
        layout.rows,
        batch_size,
        image_about | {"of": source.id, "revision": source.revision},
        lambda first: _latent_rows(
            _batches_of_pixels(source, config, layout, first, batch_size), encode_images, tell
        ),
    )
    masks = _open_masks(source, config, layout, latents["mean"], batch_size)
    prompts, prompts_reused = None, True
    if encode_prompts is not None:
        prompts, prompts_reused = open_rows(
            prompts_at,
            len(texts),
            batch_size,
            {**prompt_about, "texts": texts},
            lambda first: _prompt_rows(texts[first:], batch_size, encode_prompts, tell),
        )
    return TrainingData(
        layout=layout,
        captions=[example.captions for example in source.examples],
        mean=latents["mean"],
        std=latents["std"],
        masks=masks,
        prompt_tensors=prompts,
        texts=texts,
        reused=latents_reused and prompts_reused,
        folders=[latents_at, *([prompts_at] if texts else [])],
    )


def _latent_rows(
    batches: Iterator[Tensor], encode_images: EncodeImages, tell: _Teller
) -> Iterator[dict[str, Tensor]]:
    for pixels in batches:
        mean, std = encode_images(pixels)
        _check_finite(mean, std)
        yield {"mean": mean, "std": std}
        tell.add(len(pixels))


def _open_masks(
    source: Source, config: DataConfig, layout: Layout, latents: Tensor, batch_size: int
) -> Tensor | None:
    """Return the masks at the latents' size, uint8 [rows, 1, h', w'], None without masks."""
    if not config.masks:
        return None
    import torch

    size = (int(latents.shape[-2]), int(latents.shape[-1]))
    about = {
        **_describe_images(source, config, layout),
        "masks": source.masks_fingerprint,
        "latent size": size,
    }

    def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
        for row in range(first, layout.rows, batch_size):
            rows = range(row, min(row + batch_size, layout.rows))
            shown = [mask_of_row(source.examples, layout, one, size) for one in rows]
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


def _distinct_texts(source: Source) -> list[str]:
    """Return "" and every caption once, in the order of the examples."""
    captions = (caption for example in source.examples for caption in example.captions)
    return list(dict.fromkeys(["", *captions]))


def _describe_images(source: Source, config: DataConfig, layout: Layout) -> dict[str, Any]:
    """Return everything on the pictures' side that affects the latents."""
    crops = "middle"
    if any(len(one) > 1 for one in layout.crops):
        crops = f"{config.crop_variants} random, seed {config.seed}"
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


def _batches_of_pixels(
    source: Source, config: DataConfig, layout: Layout, first: int, batch_size: int
) -> Iterator[Tensor]:
    """Yield float32 [B, 3, h, w] in [-1, 1] of the rows from `first` on."""
    import numpy as np
    import torch

    batch: list[Any] = []
    for pixels in _pixels(source, config, layout, first):
        batch.append(pixels)
        if len(batch) == batch_size:
            yield torch.from_numpy(np.stack(batch))
            batch = []
    if batch:
        yield torch.from_numpy(np.stack(batch))


def _pixels(source: Source, config: DataConfig, layout: Layout, first: int) -> Iterator[Any]:
    """Yield each row from `first` on, decoding and resizing every picture once."""
    from hublora.data.images import cut, resize, to_rgb
    from hublora.data.survey import ordered_map

    if first == layout.rows:
        return
    start = layout.of_row(first)[0]
    indices = range(start, len(source.examples))

    def load(index: int) -> Any:
        image = to_rgb(source.examples[index].open())
        return resize(image, layout.size, config.interpolation)

    for index, image in zip(indices, ordered_map(load, indices, config.num_workers), strict=True):
        for row in range(max(first, layout.first_rows[index]), layout.first_rows[index + 1]):
            _, crop, flip = layout.of_row(row)
            yield cut(image, layout.size, crop, flip)
