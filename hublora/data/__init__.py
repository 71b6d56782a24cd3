"""Pictures and captions: found, checked, made ready and cached. Importing this loads no torch.

open_source(config) -> Source           which pictures, from a Hub dataset or a folder
build_cache(source, …) -> TrainingData  their latents and prompts, encoded once
"""

from __future__ import annotations

from hublora.data.cache import build_cache
from hublora.data.cached_dataset import TrainingData
from hublora.data.config import DataConfig
from hublora.data.examples import Example, Skipped
from hublora.data.source import Source, first, join, open_source, with_captions

__all__ = [
    "DataConfig",
    "Example",
    "Skipped",
    "Source",
    "TrainingData",
    "build_cache",
    "first",
    "join",
    "open_source",
    "with_captions",
]
