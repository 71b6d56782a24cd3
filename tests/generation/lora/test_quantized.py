"""Adapters on a quantised base: as on a plain one that has the rounded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hublora
from hublora.errors import ConfigError
from hublora.families import family_of_pipeline
from hublora.memory.frozen_linear import QuantizedLinear, read_weight
from tests.flow_pipelines import FLOW_PIPELINES
from tests.lora import random_adapter, save_adapter
from tests.tiny import save_pipeline

TARGETS = {"transformer": ("to_q", "to_v")}


@pytest.fixture(scope="module", params=["z-image", "flux-dev", "sd"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / request.param
    if request.param == "sd":
        return save_pipeline(folder)
    FLOW_PIPELINES[request.param]().save_pretrained(folder)
    return folder


def round_weights(plain: Any, quantised: Any) -> None:
    """Give a plain pipeline the weights that a quantised one computes with."""
    for name in (*family_of_pipeline(plain).text_encoders, family_of_pipeline(plain).denoiser):
        for path, layer in getattr(quantised, name).named_modules():
            if isinstance(layer, QuantizedLinear):
                getattr(plain, name).get_submodule(path).weight.data = read_weight(layer)


def generate(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    call = family_of_pipeline(pipe).call_arguments(pipe, "a red cat", "", 3.0)
    generator = torch.Generator().manual_seed(1)
    size = {"width": 32, "height": 32, "num_inference_steps": 2}
    return pipe(**call, **size, generator=generator, output_type="np").images[0]


def test_they_act_as_on_the_rounded_weights(base: Path, tmp_path: Path) -> None:
    plain = hublora.load(base=str(base), device="cpu")
    small = hublora.load(base=str(base), device="cpu", quantize="int8")
    targets = None if base.name == "sd" else TARGETS
    first, second = (
        str(
            save_adapter(random_adapter(plain, targets, rank=rank, seed=rank), tmp_path / str(rank))
        )
        for rank in (2, 3)
    )
    round_weights(plain, small)
    alone = generate(small)
    for refs, options in (
        ((first,), {}),
        ((first, f"{second}:0.5"), {}),
        ((first, second), {"compose": "switch"}),
        ((first,), {"weights": {"1": "0.2..0.9"}}),
    ):
        images = []
        for pipe in (plain, small):
            hublora.use(pipe, *refs, **options)
            images.append(generate(pipe))
        assert np.abs(images[0] - images[1]).max() < 1e-4
        assert np.abs(images[1] - alone).max() > 1e-3
    with pytest.raises(ConfigError, match="cannot be fused into a quantised base"):
        small.fuse_lora()
