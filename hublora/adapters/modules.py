"""How files call a model's layers, where that is not what the model calls them itself.

transformers 5.6 took the level `text_model` out of `CLIPTextModel`; every file, in every layout,
still has it (`text_encoder.text_model.encoder.…`, `lora_te_text_model_encoder_…`), and so do the
other tools that read what hublora writes. Files by newer diffusers may lack it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WRAPPER = "text_model."


def file_prefix(model: Any) -> str:
    """Return what files put before the names of this model's layers; mostly nothing."""
    flat = type(model).__name__ == "CLIPTextModel" and not hasattr(model, "text_model")
    return WRAPPER if flat else ""


def names_in_files(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Return each name that a file may have for a layer of `model` -> the model's own name.

    Args:
        model: A component of a pipeline.
        names: Its layers, as it calls them.
    """
    prefix = file_prefix(model)
    own = {name: name for name in names}
    wrapped = {prefix + name: name for name in own}
    bare = {name.removeprefix(WRAPPER): name for name in own}
    return bare | wrapped | own
