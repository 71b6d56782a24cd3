"""Images and captions of a training: listed, checked, encoded and cached. Loads no torch.

open_source(config) -> Source            captioned images of a Hub dataset, folder or archive
build_cache(source, …) -> CachedDataset  their latents and prompt embeddings, encoded once
"""

from __future__ import annotations

from hublora.data.cache import Encoders, build_cache, cached_texts
from hublora.data.cached_dataset import CachedDataset
from hublora.data.config import DataConfig
from hublora.data.examples import Example, Skipped
from hublora.data.source import Source, first, join, open_source, with_captions
from hublora.data.uncaptioned import open_uncaptioned

__all__ = [
    "CachedDataset",
    "DataConfig",
    "Encoders",
    "Example",
    "Skipped",
    "Source",
    "build_cache",
    "cached_texts",
    "first",
    "join",
    "open_source",
    "open_uncaptioned",
    "with_captions",
]
