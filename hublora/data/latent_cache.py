"""The cached latents and masks of one bucket: their folders, their keys and how they are made."""

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
from hublora.data.inpaint_masks import EncodeImages, inpaint_masks_per_crop, produce_inpaint_masks
from hublora.data.masks import mask_of_row
from hublora.data.row_file import count_done, open_rows
from hublora.data.source import Source
from hublora.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# Raised whenever the same inputs would give other rows than before.
FORMAT = 2


@dataclass(frozen=True)
class BucketCache:
    """The cache folders of one bucket.

    Attributes:
        source: Images and masks of the whole dataset.
        config: Crops, flips, interpolation and the cache's root folder.
        bucket: Examples that are cached here, and their crops.
        encoder: JSON values that determine the VAE's output: base, commit, dtype, …
    """

    source: Source
    config: DataConfig
    bucket: Bucket
    encoder: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Number of rows once the cache is complete."""
        return self.bucket.plan.rows

    @property
    def folder(self) -> Path:
        """Folder of the latents."""
        return self._folder("latents", {**self.pixels(), **self.encoder})

    @property
    def done(self) -> int:
        """Number of rows whose latents are cached, from 0 to `rows`."""
        return count_done(self.folder, self.rows)

    def latents(
        self, encode_images: EncodeImages, batch_size: int, add: Callable[[int], None]
    ) -> tuple[Mapping[str, Tensor], bool]:
        """Return `mean` and, unless the family uses the mode, `std` of all rows, and whether they
        were cached already.

        Args:
            encode_images: Called with float32 [B, 3, h, w], as in `Encoders`.
            batch_size: Images in one call, at least 1.
            add: Called with the number of rows that were encoded since its last call.
        """
        of = {"of": self.source.id, "revision": self.source.revision}
        about = {**self.pixels(), **self.encoder, **of}

        def produce(first: int) -> Iterator[dict[str, Tensor]]:
            examples, plan = self.bucket.pick(self.source.examples), self.bucket.plan
            for pixels in batches_of_pixels(examples, self.config, plan, first, batch_size):
                mean, std = encode_images(pixels)
                latents = {"mean": mean} if std is None else {"mean": mean, "std": std}
                _check_finite(*latents.values())
                yield latents
                add(len(pixels))

        return open_rows(self.folder, self.rows, batch_size, about, produce)

    def masks(self, latents: Tensor, batch_size: int) -> Tensor | None:
        """Return the loss masks, uint8 [rows, 1, h', w']; None unless `data.masks` is set.

        Args:
            latents: Latents of the bucket, [rows, C, h', w'].
            batch_size: Rows that are written at a time, at least 1.
        """
        if not self.config.masks:
            return None
        import torch

        size = (int(latents.shape[-2]), int(latents.shape[-1]))
        masks = {"masks": self.source.masks_fingerprint, "latent size": size}
        about = {**self.pixels(), **masks}

        def produce(first: int) -> Iterator[Mapping[str, Tensor]]:
            examples, plan = self.bucket.pick(self.source.examples), self.bucket.plan
            for row in range(first, self.rows, batch_size):
                rows = range(row, min(row + batch_size, self.rows))
                batch = [mask_of_row(examples, plan, one, size) for one in rows]
                yield {"mask": torch.stack([torch.tensor(mask) for mask in batch])[:, None]}

        folder = self._folder("masks", about)
        return open_rows(folder, self.rows, batch_size, about, produce)[0]["mask"]

    def inpainting(self, encode_images: EncodeImages, batch_size: int) -> Mapping[str, Tensor]:
        """Return `mask` and `masked_latents` of all rows, as `hublora.data.inpaint_masks` says."""
        config, count = self.config, inpaint_masks_per_crop(self.config)
        examples = self.bucket.pick(self.source.examples)
        masks = f"{count} random, seed {config.seed}"
        if config.masks:
            masks = self.source.masks_fingerprint
        about = {**self.pixels(), **self.encoder, "inpainting masks": masks}
        produce = produce_inpaint_masks(
            examples, config, self.bucket.plan, batch_size, encode_images
        )
        folder = self._folder("inpainting", about)
        return open_rows(folder, self.rows * count, batch_size * count, about, produce)[0]

    def _folder(self, kind: str, about: Mapping[str, Any]) -> Path:
        return self.config.cache_root / kind / key_of(about)

    def pixels(self) -> dict[str, Any]:
        """Return everything that determines the pixels of the rows."""
        plan = self.bucket.plan
        return {
            "format": FORMAT,
            "images": self.source.images_fingerprint,
            "members": key_of({"members": list(self.bucket.members)}),
            "size": list(plan.size),
            "crops": key_of({"crops": [[crop.at for crop in crops] for crops in plan.crops]}),
            "flips": plan.flips,
            "interpolation": self.config.interpolation,
        }


def _check_finite(*latents: Tensor) -> None:
    """Refuse infinite latents: some VAEs overflow in float16, and training would only see NaN.

    Raises:
        ConfigError: A value is not finite.
    """
    if not all(tensor.isfinite().all() for tensor in latents):
        raise ConfigError(
            f"The VAE returned infinite values in {str(latents[0].dtype).removeprefix('torch.')}.",
            "Let it run in bfloat16 or float32.",
        )


def key_of(about: Mapping[str, Any]) -> str:
    """Return the name of the cache folder of `about`: 32 hexadecimal digits."""
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
