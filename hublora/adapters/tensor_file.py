"""Reads all tensors of a safetensors file into memory."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return name -> tensor of a safetensors file, copied into memory.

    safetensors' default, a memory map, never frees 64 bytes of each tensor (0.8.0), which are
    200 kB every time that a service brings back an adapter of SDXL; and a mapped file that is
    truncated meanwhile ends the process.

    Raises:
        SafetensorError, KeyError, ValueError: The file is damaged.
        OSError: It cannot be opened.
    """
    tensors: dict[str, torch.Tensor] = load_file(path, backend="pread")
    return tensors
