"""Where the encoded images of one shape lie, and how they get there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.config import DataConfig
from hublora.data.crops import Bucket
from hublora.data.image_batches import batches_of_pixels
from hublora.data.inpaint_masks import EncodeImages, holes_of_each, produce_holes
from hublora.data.masks import mask_of_row
from hublora.data.row_file import count_done, open_rows
from hublora.data.source import Source
from hublora.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# Raised whenever the same inputs would give other rows than before.
FORMAT = 1


@dataclass(frozen=True)
class BucketCache:
    """The cached rows of one bucket.

    Attributes:
        source: All images.
        config: How they are cut, and where the cache is.
        bucket: Which of them lie here.
        arranged: What decided which ones, and is not told by the images.
        encoder: What decides how they are encoded.
    """

    source: Source
    config: DataConfig
    bucket: Bucket
    arranged: Mapping[str, Any]
    encoder: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """How many rows there are to be."""
        return self.bucket.layout.rows

    @property
    def folder(self) -> Path:
        """Where the latents lie."""
        return self._folder("latents", {**self._pixels(), **self.encoder})

    @property
    def done(self) -> int:
        """Rows that need not be encoded any more."""
        return count_done(self.folder, self.rows)

    def latents(
        self, encode_images: EncodeImages, batch_size: int, add: Callable[[int], None]
    ) -> tuple[Mapping[str, Tensor], bool]:
        """Return mean and std of every row, and whether they were there already.

        Args:
            encode_images: As `build_cache` is given it.
            batch_size: Images of one call.
            add: Told how many rows were encoded.
        """
        of = {"of": self.source.id, "revision": self.source.revision}
        about = {**self._pixels(), **self.encoder, **of}

        def produce(first: int) -> Iterator[dict[str, Tensor]]:
            examples, layout = self.bucket.pick(self.source.examples), self.bucket.layout
            for pixels in batches_of_pixels(examples, self.config, layout, first, batch_size):
                mean, std = encode_images(pixels)
                _check_finite(mean, std)
                yield {"mean": mean, "std": std}
                add(len(pixels))

        return open_rows(self.folder, self.rows, batch_size, about, produce)

    def masks(self, latents: Tensor, batch_size: int) -> Tensor | None:
        """Return the masks at the latents' size, uint8 [rows, 1, h', w'], None without masks."""
        if not self.config.masks:
            return None
        import torch

        size = (int(latents.shape[-2]), int(latents.shape[-1]))
        masks = {"masks": self.source.masks_fingerprint, "latent size": size}
        about = {**self._pixels(), **masks}

        def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
            examples, layout = self.bucket.pick(self.source.examples), self.bucket.layout
            for row in range(first, self.rows, batch_size):
                rows = range(row, min(row + batch_size, self.rows))
                shown = [mask_of_row(examples, layout, one, size) for one in rows]
                yield {"mask": torch.stack([torch.tensor(mask) for mask in shown])[:, None]}

        folder = self._folder("masks", about)
        return open_rows(folder, self.rows, batch_size, about, produce)[0]["mask"]

    def holes(self, encode_images: EncodeImages, batch_size: int) -> Mapping[str, Tensor]:
        """Return masks and surroundings of every row, as `hublora.data.inpaint_masks` has them."""
        config, each = self.config, holes_of_each(self.config)
        examples = self.bucket.pick(self.source.examples)
        drawn = f"{each} random, seed {config.seed}"
        if config.masks:
            drawn = self.source.masks_fingerprint
        about = {**self._pixels(), **self.encoder, "holes": drawn}
        produce = produce_holes(examples, config, self.bucket.layout, batch_size, encode_images)
        folder = self._folder("holes", about)
        return open_rows(folder, self.rows * each, batch_size * each, about, produce)[0]

    def _folder(self, kind: str, about: Mapping[str, Any]) -> Path:
        return self.config.cache_root / kind / key_of(about)

    def _pixels(self) -> dict[str, Any]:
        """Return everything that decides which pixels the rows show."""
        return _describe_images(self.source, self.config, self.bucket) | dict(self.arranged)


def _describe_images(source: Source, config: DataConfig, bucket: Bucket) -> dict[str, Any]:
    """Return everything on the images' side that affects the latents."""
    layout, crops = bucket.layout, "middle"
    if any(len(one) > 1 for one in layout.crops):
        crops = f"{config.crop_variants} random, seed {config.seed}"
    if any(source.examples[index].focus for index in bucket.members):
        crops = f"around {key_of({'focus': [one.focus for one in source.examples]})}, else {crops}"
    return {
        "format": FORMAT,
        "images": source.images_fingerprint,
        "size": list(layout.size),
        "crops": crops,
        "flips": layout.flips,
        "interpolation": config.interpolation,
    }


def _check_finite(mean: Tensor, std: Tensor) -> None:
    """Stop at once where some VAEs overflow in float16, and training would see only NaN."""
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise ConfigError(
            f"The VAE returned infinite values in {str(mean.dtype).removeprefix('torch.')}.",
            "Let it run in bfloat16 or float32.",
        )


def key_of(about: Mapping[str, Any]) -> str:
    """Return the name of a folder that stands for everything in `about`."""
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
