"""Where weights are, and what costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hublora.errors import ConfigError
from hublora.generation.offload import place
from hublora.resolution.device import parse_dtype


def test_half_precision_is_for_gpus() -> None:
    assert parse_dtype(None, "cpu") == parse_dtype(None, "cpu", "bfloat16") == torch.float32
    assert parse_dtype(None, "cuda:1") == parse_dtype(None, "mps") == torch.float16
    assert parse_dtype(None, "cuda", "bfloat16") == torch.bfloat16
    with pytest.raises(ConfigError, match="overflows in float16"):
        parse_dtype("float16", "cuda", "bfloat16")


def test_a_tiled_decoder_gives_nearly_the_same_image(pipe: Any) -> None:
    latents = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = pipe.vae.decode(latents).sample
        place(pipe, "cpu", tiled_vae=True)
        assert pipe.vae.use_tiling
        assert pipe.vae.use_slicing
        assert pipe.vae.decode(latents).sample.shape == whole.shape


def test_there_is_nothing_to_offload_from_a_cpu(pipe: Any) -> None:
    with pytest.raises(ConfigError, match="no GPU to offload from"):
        place(pipe, "cpu", offload="model")
