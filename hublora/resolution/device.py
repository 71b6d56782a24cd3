"""Chooses the device and the dtype to generate with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hublora.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float16", "bfloat16")


def check_device(name: str) -> str:
    """Return the name of a device if PyTorch can compute on it here.

    Raises:
        ConfigError: It cannot.
    """
    import torch

    try:
        usable = torch.zeros(1, device=name).add(1).item() == 1
    except (RuntimeError, AssertionError, NotImplementedError):
        usable = False
    if not usable:
        raise ConfigError(
            f"PyTorch cannot use the device {name!r} here.", "Leave --device out, or name cpu."
        )
    return name


def default_device() -> str:
    """Return "cuda" or "mps" where there is such a device, else "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def parse_dtype(name: str | torch.dtype | None, device: str, half: str = "float16") -> torch.dtype:
    """Return a dtype by its name; without one, the default of the device.

    Args:
        name: One of `DTYPES`, or None.
        device: Device that will compute.
        half: Half precision that does not overflow with the base model, "float16" or "bfloat16".

    Raises:
        ConfigError: The name is not in `DTYPES`, or the base model overflows in it.
    """
    import torch

    if name is None:
        return torch.float32 if device.startswith("cpu") else getattr(torch, half)
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"Unknown dtype {name!r}.", f"Choose from {', '.join(DTYPES)}.")
    if name == "float16" != half:
        raise ConfigError(
            "This base model overflows in float16: its images would be black.",
            f"Use {half}, or leave the dtype out.",
        )
    return getattr(torch, name)
