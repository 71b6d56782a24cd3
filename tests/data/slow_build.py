"""A program that builds a cache slowly, noting every row on the disk at once."""

from __future__ import annotations

import sys
import time

import torch

from hublora.data import DataConfig, Encoders, build_cache, open_source, row_file


def build() -> None:
    """Build the cache of the images in argv[1] in argv[2], pausing argv[3] seconds a batch."""
    row_file.SECONDS_BETWEEN_SYNCS = 0.0
    photos, cache, pause = sys.argv[1:]
    encoded = 0

    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal encoded
        encoded += len(pixels)
        time.sleep(float(pause))
        return pixels[:, :, ::4, ::4], pixels[:, :, ::4, ::4].abs()

    def write(texts: list[str]) -> dict[str, torch.Tensor]:
        return {"embeds": torch.tensor([[float(len(text))] for text in texts])}

    config = DataConfig(folder=photos, cache_dir=cache, random_flip=True)
    data = build_cache(
        open_source(config),
        config,
        Encoders(encode, write, batch_size=2),
        size=(16, 16),
        progress=lambda done, total: print(done, total, flush=True),
    )
    print("encoded", encoded, *[folder / row_file.ROWS for folder in data.folders], flush=True)
