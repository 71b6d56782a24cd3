"""Kinds of adapters: what is trained is what the saved file does on the unchanged base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hublora.adapters.files import save_tensors
from hublora.adapters.layouts import to_diffusers
from hublora.errors import ConfigError
from hublora.filesystem import sha256_of
from hublora.training.loop import train
from hublora.training.session import Session

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "alpha": {"adapter__alpha": 1.0},
    "dora": {"adapter__method": "dora"},
    "rslora": {"adapter__rank_stabilized": True, "adapter__alpha": 2.0},
    "pissa": {"adapter__init": "pissa"},
    "olora": {"adapter__init": "olora", "adapter__rank_stabilized": True},
    "conv": {"adapter__conv_rank": 2, "adapter__alpha": 8.0},
    "blocks": {"adapter__blocks": ["up_blocks.1", "mid_block=2"]},
    "loha": {"adapter__method": "loha", "adapter__rank": 2, "adapter__conv_rank": 2},
    "lokr": {"adapter__method": "lokr", "adapter__rank": 2},
    "average": {"adapter__ema_decay": 0.5},
}


def predict(unet: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 4, 16, 16, generator=generator)
    hidden = torch.randn(1, 8, 32, generator=generator)
    training = unet.training
    with torch.no_grad():
        prediction = unet.eval()(noisy, torch.tensor([500]), hidden).sample
    unet.train(training)
    return prediction


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_plain_diffusers_loads_what_was_trained(
    start: Callable[..., Session], changes: dict[str, Any], bases: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    session = start(schedule__max_train_steps=2, optimizer__learning_rate=2e-2, **changes)
    list(train(session))
    with session.averaged():
        trained = predict(session.pipe.unet)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    tensors, metadata = to_diffusers(session.adapter())
    save_tensors(tensors, path, metadata)
    plain = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    alone = predict(plain.unet)
    plain.load_lora_weights(path.parent, weight_name=path.name)
    loaded = predict(plain.unet)
    assert (trained - alone).abs().max() > 1e-3, "it was trained"
    assert torch.allclose(loaded, trained, atol=1e-5), (loaded - trained).abs().max()


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_begins_in_the_base_changes_nothing_untrained(
    start: Callable[..., Session], init: str, bases: Path
) -> None:
    file = bases / "epsilon" / "unet" / "diffusion_pytorch_model.safetensors"
    before = sha256_of(file)
    plain = start()
    session = start(adapter__init=init)
    with session.base_alone():
        alone = predict(session.pipe.unet)
    assert torch.allclose(predict(session.pipe.unet), alone, atol=1e-5)
    assert torch.equal(alone, predict(plain.pipe.unet)), "the base's own weights, bit by bit"
    weight = session.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    assert not torch.equal(weight.base_layer.weight, plain_weight(plain)), "its rest is trained on"
    for layer in session.adapter().layers["unet"].values():
        assert (layer.up @ layer.down).abs().max() < 1e-6
    assert sha256_of(file) == before


def plain_weight(session: Session) -> torch.Tensor:
    return session.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight


def test_blocks_decide_layers_and_ranks(start: Callable[..., Session]) -> None:
    layers = start(adapter__blocks=["up_blocks.1", "mid_block=2"]).adapter().layers["unet"]
    ranks = {name.split(".attentions")[0]: layer.rank for name, layer in layers.items()}
    assert ranks == {"up_blocks.1": 4, "mid_block": 2}


def test_targets_may_be_patterns_of_whole_names(start: Callable[..., Session]) -> None:
    session = start(adapter__targets=["mid_block.*.attn2.to_?", "proj_in"])
    names = set(session.adapter().layers["unet"])
    assert all(".attn2.to_" in name or name.endswith("proj_in") for name in names)
    assert all(name.startswith("mid_block") for name in names if ".attn2." in name)


def test_convolutions_have_a_rank_of_their_own_and_the_same_scale(
    start: Callable[..., Session],
) -> None:
    layers = start(adapter__conv_rank=2, adapter__alpha=8.0).adapter().layers["unet"]
    assert {layer.rank for layer in layers.values() if layer.down.ndim == 4} == {2}
    assert {layer.scale for layer in layers.values()} == {2.0}


def test_rank_stabilized_convolutions_have_the_same_scale(start: Callable[..., Session]) -> None:
    session = start(adapter__rank=8, adapter__conv_rank=2, adapter__rank_stabilized=True)
    layers = session.adapter().layers["unet"]
    assert {layer.rank for layer in layers.values()} == {8, 2}
    for layer in layers.values():
        assert layer.scale == pytest.approx(8 / 8**0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks": ["up_block.1"]}, ("up_block.1", "up_blocks.1")),
        ({"blocks": ["mid_block=x"]}, ("mid_block=x",)),
        ({"targets": ["to_x"]}, ("to_x", "to_k")),
        ({"targets": ["conv1"], "init": "pissa"}, ("pissa", "conv1")),
    ],
)
def test_layers_that_are_not_there_are_named(
    start: Callable[..., Session], changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        start(**{f"adapter__{key}": value for key, value in changes.items()})
    assert all(word in str(caught.value) for word in words)


def test_rates_differ_by_component_and_matrix(start: Callable[..., Session]) -> None:
    session = start(
        adapter__text_encoder=True,
        optimizer__learning_rate=1e-3,
        optimizer__text_encoder_learning_rate=1e-4,
        optimizer__lora_plus_ratio=4.0,
    )
    rates = {
        id(parameter): group["initial_lr"]
        for group in session.optimizer.param_groups
        for parameter in group["params"]
    }
    for component, rate in (("unet", 1e-3), ("text_encoder", 1e-4)):
        for name, parameter in session.adapted[component].parameters.items():
            assert rates[id(parameter)] == rate * (4 if "lora_B" in name else 1)


def test_the_average_is_that_of_its_equation(start: Callable[..., Session]) -> None:
    from hublora.training.events import StepDone

    session = start(adapter__ema_decay=0.5, schedule__max_train_steps=4)
    seen = []
    for event in train(session):
        if isinstance(event, StepDone):
            seen.append(torch.cat([p.detach().flatten().clone() for p in session.parameters]))
    average = seen[0]
    for step, weights in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))  # it warms up, as diffusers' does
        average = decay * average + (1 - decay) * weights
    with session.averaged():
        found = torch.cat([p.detach().flatten() for p in session.parameters])
    assert torch.allclose(found, average, atol=1e-7)
    assert torch.equal(torch.cat([p.detach().flatten() for p in session.parameters]), seen[-1])


def test_a_training_starts_from_an_adapter(start: Callable[..., Session], tmp_path: Path) -> None:
    """The update that it starts from is the adapter's, at another rank and alpha."""
    first = start(schedule__max_train_steps=2, optimizer__learning_rate=1e-2, adapter__alpha=2.0)
    list(train(first))
    path = tmp_path / "first.safetensors"
    tensors, metadata = to_diffusers(first.adapter())
    save_tensors(tensors, path, metadata)
    second = start(adapter__start_from=f"{path}:0.5", adapter__rank=6)
    assert torch.allclose(_update(second) * 2, _update(first), atol=1e-6), (
        "half of it, as the ref says"
    )
    assert not torch.equal(predict(second.pipe.unet), predict(start().pipe.unet))
    with pytest.raises(ConfigError, match="rank 4"):
        start(adapter__start_from=str(path), adapter__rank=2)
    with pytest.raises(ConfigError, match="not trained here"):
        start(adapter__start_from=str(path), adapter__targets=["to_q"])


def test_what_it_started_from_is_shared_without_this_machines_paths(tmp_path: Path) -> None:
    from hublora.training.config.training_config import TrainingConfig

    shared = {
        ref: TrainingConfig.from_settings(
            {"base.model": "a/b", "adapter.start_from": ref}
        ).shareable()["adapter"]["start_from"]
        for ref in (f"{tmp_path}/secret/x.safetensors:0.5", "me/lora@main:0.5")
    }
    assert list(shared.values()) == ["x.safetensors:0.5", "me/lora@main:0.5"]


def _update(session: Session) -> torch.Tensor:
    layers = session.adapter().layers["unet"]
    return torch.cat([(one.scale * one.up @ one.down).flatten() for one in layers.values()])
