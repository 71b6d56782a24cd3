"""The numbers that scale a VAE's latents, checked: with a zero there, nothing is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hublora.errors import AdapterError


def latent_scale(vae: Any) -> float:
    """Return the factor of a VAE's latents.

    Raises:
        AdapterError: The VAE's config states none that latents can be multiplied with.
    """
    return _checked(vae.config.scaling_factor, "scaling_factor")


def latent_deviations(vae: Any) -> Sequence[float]:
    """Return the deviations of a VAE's latents, one for each channel.

    Raises:
        AdapterError: One of them is not a number that latents can be divided by.
    """
    return [_checked(one, "latents_std") for one in vae.config.latents_std]


def _checked(value: Any, name: str) -> float:
    if isinstance(value, int | float) and math.isfinite(value) and value != 0:
        return value
    raise AdapterError(
        f"{name} in the config of the base's VAE must be a number other than 0, got {value!r}.",
        "Take another base model, or mend its vae/config.json.",
    )
