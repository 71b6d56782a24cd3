"""Names of a model's layers in adapter files, where they are not the model's own.

transformers 5.6 took the level `text_model` out of `CLIPTextModel`; every file, in every layout,
still has it (`text_encoder.text_model.encoder.…`, `lora_te_text_model_encoder_…`), and so do the
other tools that read what hublora writes. Files by newer diffusers may lack it.

A denoiser's layers may have the names of its original implementation
(`hublora.families.lora_names.LoraNames`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from hublora.families.registry import native_layers

WRAPPER = "text_model."


def file_prefix(model: Any) -> str:
    """Return the prefix that files have before the names of this model's layers; mostly none."""
    flat = type(model).__name__ == "CLIPTextModel" and not hasattr(model, "text_model")
    return WRAPPER if flat else ""


def names_in_files(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Return each name that a file may have for a layer of `model` -> the model's own name.

    Args:
        model: A component of a pipeline.
        names: Names of its layers.
    """
    return file_names(list(names), file_prefix(model))


def file_names(names: Collection[str], prefix: str | None = None) -> dict[str, str]:
    """Return each name that a file may have for a layer -> the layer's own name.

    Args:
        names: Names of all layers of a model, as in the model or its weights.
        prefix: Prefix that files have before them; None determines it from the names.
    """
    if prefix is None:
        text = any(name.startswith("encoder.layers.") for name in names)
        prefix = WRAPPER if text else ""
    own = {name: name for name in names}
    prefixed = {prefix + name: name for name in own}
    bare = {name.removeprefix(WRAPPER): name for name in own}
    native = {name: layers[0] for name, layers in native_layers(names).items() if len(layers) == 1}
    return native | bare | prefixed | own
