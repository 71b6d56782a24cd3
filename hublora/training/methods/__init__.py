"""Training methods: which captions images get, and what is trained from which step on.

One file a method; all run in the same loop, which never asks for a method's name.
"""

from __future__ import annotations

from hublora.training.config.training_config import TrainingConfig
from hublora.training.methods.base import Method
from hublora.training.methods.dreambooth import DreamBooth
from hublora.training.methods.pivotal import Pivotal
from hublora.training.methods.text_to_image import TextToImage
from hublora.training.methods.textual_inversion import TextualInversion

_ALL: tuple[Method, ...] = (TextToImage(), DreamBooth(), TextualInversion(), Pivotal())

METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def method_of(config: TrainingConfig) -> Method:
    """Return the method that the settings name."""
    return METHODS[config.method]


__all__ = ["METHODS", "Method", "method_of"]
