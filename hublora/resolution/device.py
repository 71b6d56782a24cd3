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


def parse_dtype(name: str | torch.dtype | None, device: str) -> torch.dtype:
    """Return a dtype by its name; without one, the default of the device.

    Raises:
        ConfigError: The name is not in `DTYPES`.
    """
    import torch

    if name is None:
        return default_dtype(device)
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ConfigError(f"Unknown dtype {name!r}.", f"Choose from {', '.join(DTYPES)}.")
    return getattr(torch, name)


def default_dtype(device: str) -> torch.dtype:
    """Return the default dtype of weights on a device: float32 on a CPU, float16 elsewhere."""
    import torch

    return torch.float32 if device.startswith("cpu") else torch.float16
