"""IP-Adapters: an image as a prompt (https://huggingface.co/papers/2308.06721)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hublora.errors import AdapterError, ConfigError


def add_ip_adapter(
    pipe: Any, folder: Path, file: str, encoder: str, scale: float, label: str
) -> None:
    """Load an IP-Adapter and its image encoder into a pipeline.

    Args:
        pipe: A diffusers pipeline, not yet on its device.
        folder: Folder of adapter and image encoder.
        file: Path of the adapter's safetensors file inside `folder`.
        encoder: Path of the image encoder's folder inside `folder`.
        scale: Strength of the image prompt, -10 to 10; 0 to 1 is usual.
        label: Name of the adapter in messages.

    Raises:
        ConfigError: diffusers has no IP-Adapters for this pipeline class.
        AdapterError: The file is not an IP-Adapter, or does not fit the base.
    """
    from safetensors import SafetensorError

    if not hasattr(pipe, "load_ip_adapter"):
        raise ConfigError(
            f"diffusers has no IP-Adapters for {type(pipe).__name__}.", "Leave --ip-adapter out."
        )
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
            f"The IP-Adapter {label} does not fit the base: {first}", "Use one for this base."
        ) from error
    pipe.set_ip_adapter_scale(scale)
