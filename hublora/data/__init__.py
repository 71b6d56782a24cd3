"""Images and captions: found, checked, made ready and cached. Importing this loads no torch.

open_source(config) -> Source           which images, from a Hub dataset or a folder
build_cache(source, …) -> CachedDataset  their latents and prompts, encoded once
"""

from __future__ import annotations

from hublora.data.cache import build_cache
from hublora.data.cached_dataset import CachedDataset
from hublora.data.config import DataConfig
from hublora.data.examples import Example, Skipped
from hublora.data.source import Source, first, join, open_source, with_captions

__all__ = [
    "CachedDataset",
    "DataConfig",
    "Example",
    "Skipped",
    "Source",
    "build_cache",
    "first",
    "join",
    "open_source",
    "with_captions",
]
