"""Adapters of every kind on the embedded Hub, and the base that they fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hublora.adapters.adapter import Adapter, LowRank

if TYPE_CHECKING:
    from hublora.serve.engine import Engine

CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "to_v")


def _with_magnitude(adapter: Adapter, pipe: object) -> Adapter:
    """Return the adapter as a DoRA whose rows are a tenth longer than the base's."""

    def longer(component: str, name: str, update: LowRank) -> LowRank:
        weight = getattr(pipe, component).get_submodule(name).weight
        return replace(update, magnitude=1.1 * weight.detach().flatten(1).norm(dim=1))

    layers = {
        component: {name: longer(component, name, one) for name, one in own.items()}
        for component, own in adapter.layers.items()
    }
    return replace(adapter, layers=layers)


@pytest.fixture(scope="session")
def adapters(
    hub: object, hub_data: Path, bases: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Kind of an adapter -> its repo: attention, convolutions, texts, dora, wide."""
    from diffusers import StableDiffusionPipeline

    from hublora.localhub import import_folder
    from tests.lora import random_adapter, save_adapter

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    texts = {"unet": ("to_k",), "text_encoder": ("q_proj", "v_proj")}
    made = {
        "attention": random_adapter(pipe, rank=3, seed=1),
        "convolutions": random_adapter(pipe, {"unet": CONVOLUTIONS}, rank=5, seed=2, size=0.15),
        "texts": random_adapter(pipe, texts, rank=4, seed=3),
        "dora": _with_magnitude(random_adapter(pipe, rank=4, seed=4), pipe),
        "wide": random_adapter(pipe, rank=40, alpha=20, seed=5, size=0.2),
    }
    found = {}
    for name, adapter in made.items():
        folder = tmp_path_factory.mktemp("adapter")
        save_adapter(adapter, folder, "bases/epsilon")
        found[name] = f"served/{name}"
        import_folder(hub_data, found[name], folder)
    return found


@pytest.fixture(scope="session")
def engine(hub: object) -> Iterator[Engine]:
    """The random base, served."""
    from hublora.serve.engine import Engine
    from hublora.serve.settings import EngineSettings

    served = Engine("bases/epsilon", EngineSettings(device="cpu", most_requests=6, patience=60.0))
    yield served
    served.close()
    assert not torch.is_inference_mode_enabled()
