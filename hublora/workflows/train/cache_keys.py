"""What the cached output of a base's encoders depends on, besides images and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hublora.resolution.base import Base

if TYPE_CHECKING:
    import torch


def image_key(base: Base, device: torch.device) -> dict[str, Any]:
    """Return all that determines the latents of given pixels."""
    return {**_of_base(base, device), "commit": base.version([base.family.vae])}


def prompt_key(
    base: Base, device: torch.device, dtype: torch.dtype, tokens: int, quantize: str | None = None
) -> dict[str, Any]:
    """Return all that determines the embeddings of given texts."""
    texts = {"dtype": str(dtype), "tokens": tokens, **({"quantize": quantize} if quantize else {})}
    return {**_of_base(base, device), "commit": base.version(base.encodes_prompts), **texts}


def _of_base(base: Base, device: torch.device) -> dict[str, Any]:
    # Kinds of devices round differently; the key of a processor is the older one without it.
    on = {} if device.type == "cpu" else {"device": device.type}
    return {"base": base.name, "family": base.family.name, **on}
