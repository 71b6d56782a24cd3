"""IP-Adapters: an image as a prompt (https://huggingface.co/papers/2308.06721)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hublora.errors import AdapterError, ConfigError


def add_ip_adapter(
    pipe: Any, folder: Path, file: str, encoder: str, scale: float, label: str
) -> None:
    """Put an IP-Adapter on a pipeline, and the image encoder that it needs.

    Args:
        pipe: A diffusers pipeline, not yet on its device.
        folder: With both of them.
        file: Safetensors file of the adapter, inside of `folder`.
        encoder: Folder of the image encoder, inside of `folder`.
        scale: Strength of the image prompt; 0 to 1 is usual.
        label: The adapter, in messages.

    Raises:
        ConfigError: diffusers has no IP-Adapters for the pipeline.
        AdapterError: It does not fit the base, or is none.
    """
    from safetensors import SafetensorError

    if not hasattr(pipe, "load_ip_adapter"):
        raise ConfigError(f"diffusers has no IP-Adapters for a {type(pipe).__name__}.")
    inside, _, name = file.rpartition("/")
    try:
        pipe.load_ip_adapter(
            str(folder),
            subfolder=inside,
            weight_name=name,
            image_encoder_folder=encoder if "/" in encoder else f"./{encoder}",
            local_files_only=True,
        )
    except (RuntimeError, ValueError, KeyError, IndexError, OSError, SafetensorError) as error:
        first = " ".join(str(error).split())[:200]
        raise AdapterError(
            f"The IP-Adapter {label} does not fit the base: {first}", "Take one made for it."
        ) from error
    pipe.set_ip_adapter_scale(scale)
