"""Where weights are, and what costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import hublora
from hublora.errors import ConfigError
from hublora.families import family_of_pipeline
from hublora.generation.offload import place, swap_blocks
from hublora.resolution.device import parse_dtype
from tests.lora import random_adapter, save_adapter


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


def test_an_unknown_way_to_offload_is_refused(pipe: Any) -> None:
    with pytest.raises(ConfigError, match="Unknown offload 'block'"):
        place(pipe, "cuda", offload="block")


def test_blocks_are_swapped_while_adapters_change(bases: Any, tmp_path: Any) -> None:
    """On the CPU, where each copy has another place in memory than what is waiting."""
    base = str(bases / "epsilon")
    pipes = [hublora.load(base=base, device="cpu") for _ in range(2)]
    adapter = str(save_adapter(random_adapter(pipes[0]), tmp_path / "adapter"))
    swap_blocks(pipes[1], family_of_pipeline(pipes[1]), "cpu", None)
    images = []
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        for refs in ((adapter,), (), (adapter, f"{adapter}:0.5")):
            hublora.use(pipe, *refs)
            generator = torch.Generator().manual_seed(0)
            call = {"num_inference_steps": 2, "output_type": "np", "generator": generator}
            images.append(pipe("a cat", **call).images)
    for whole, swapped in zip(images[:3], images[3:], strict=True):
        assert np.array_equal(whole, swapped)
    assert not np.array_equal(images[0], images[1])
