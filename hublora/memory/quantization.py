"""Kinds of quantised base models, and what each of them needs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from hublora.errors import ConfigError

Quantization = Literal["int8", "fp8", "nf4"]

# Kind -> what a base model in it is called; the order is that of the bits.
DESCRIPTIONS: dict[Quantization, str] = {
    "int8": "int8, one scale a row",
    "fp8": "float8 (e4m3), one scale a row",
    "nf4": "NF4 of bitsandbytes, one scale for 64 weights",
}
BITS: dict[Quantization, float] = {"int8": 8, "fp8": 8, "nf4": 4.5}  # NF4 with its scales


def check_quantization(kind: Quantization | None, device: str) -> None:
    """Check that the device can compute with a base model of this kind.

    Args:
        kind: The kind; None is an unquantised base model.
        device: Torch device, such as "cuda:1" or "cpu".

    Raises:
        ConfigError: It cannot, or a package is missing.
    """
    if kind not in (None, *DESCRIPTIONS):
        raise ConfigError(f"Unknown quantize {kind!r}.", f"Choose from {', '.join(DESCRIPTIONS)}.")
    on = device.partition(":")[0]
    if kind == "nf4":
        if on != "cuda":
            raise ConfigError(
                f"--quantize nf4 needs a CUDA GPU, and this runs on {on}.",
                "Use --quantize int8, which needs none.",
            )
        if find_spec("bitsandbytes") is None:
            raise ConfigError(
                "--quantize nf4 needs the package bitsandbytes, which is not installed.",
                "Install it with: pip install 'hublora[quantize]'. Or use --quantize int8.",
            )
    if kind == "fp8" and on not in ("cuda", "cpu"):
        raise ConfigError(
            f"PyTorch has no float8 on {on}, which --quantize fp8 needs.", "Use --quantize int8."
        )
