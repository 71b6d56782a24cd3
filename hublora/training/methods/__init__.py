"""Methods: what is shown under which captions, and what of the base learns from it when.

One file each, on the same loop; the loop asks a method and never which one it is.
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
