"""Checkpoints are whole or absent, and a training goes on from one exactly."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from hublora.errors import ConfigError
from hublora.filesystem import sha256_of
from hublora.training.checkpoint import (
    check_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.optimizers import resolve_weight_decay
from hublora.training.session import InputHashes, Session
from tests.tiny import save_images

SUBJECT = {
    "method": "dreambooth",
    "dreambooth__instance_prompt": "a sks cat",
    "dreambooth__prior_preservation": True,
    "dreambooth__class_prompt": "a cat",
}
WORDS = {"tokens__placeholders": ["<x>"], "tokens__num_vectors": 2}


def advance(session: Session, to: int) -> list[float]:
    """Train up to a step, return the losses."""
    losses = []
    for event in train(session):
        if isinstance(event, StepDone):
            losses.append(event.loss.item())
            if event.step == to:
                break
    return losses


def check(folder: Path, session: Session) -> None:
    check_checkpoint(folder, session.config, session.inputs, session.accelerator)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"adapter__dropout": 0.5},
        {"adapter__text_encoder": True, "adapter__dropout": 0.5},
        {"schedule__name": "cosine_with_restarts", "schedule__warmup_steps": 2},
        {"adapter__method": "dora", "adapter__ema_decay": 0.9},
        {"adapter__init": "pissa", "optimizer__lora_plus_ratio": 4.0},
        {"adapter__method": "loha"},
        {**SUBJECT, "class_images": 2},
        {**WORDS, "method": "textual-inversion"},
        {**WORDS, "method": "pivotal", "tokens__first_steps": 4, "adapter__ema_decay": 0.9},
        {**SUBJECT, **WORDS, "method": "pivotal", "adapter__text_encoder": True},
    ],
    ids=[
        *("accumulation", "dropout", "text-encoder", "schedule", "dora-ema", "pissa", "loha"),
        *("dreambooth", "textual-inversion", "pivotal-in-its-first-part", "pivotal-with-all"),
    ],
)
def test_a_resumed_training_is_the_uninterrupted_one(start, changes) -> None:
    changes |= {"schedule__max_train_steps": 6, "optimizer__learning_rate": 1e-2}
    whole = start(**changes)
    losses = advance(whole, 3)
    folder = save_checkpoint(whole)
    losses += advance(whole, 6)

    resumed = start(**changes)
    torch.rand(7)  # whatever was sampled before
    check(folder, resumed)
    load_checkpoint(resumed, folder)
    assert resumed.step == 3
    assert advance(resumed, 6) == losses[3:]
    for one, other in zip(whole.learned_tokens(), resumed.learned_tokens(), strict=True):
        assert torch.equal(one.vectors[0], other.vectors[0])
    expected, found = whole.adapter(), resumed.adapter()
    assert expected.layers.keys() == found.layers.keys()
    for component, layers in expected.layers.items():
        for name, layer in layers.items():
            assert torch.equal(layer.down, found.layers[component][name].down)
            assert torch.equal(layer.up, found.layers[component][name].up)


def test_a_checkpoint_is_an_adapter_that_can_be_used(start) -> None:
    from hublora.adapters.files import load_adapter

    session = start()
    advance(session, 2)
    folder = save_checkpoint(session)
    saved = load_adapter(folder / "pytorch_lora_weights.safetensors")
    adapted = session.adapter().layers
    assert {name: set(modules) for name, modules in saved.layers.items()} == {
        name: set(modules) for name, modules in adapted.items()
    }


def test_a_checkpoint_holds_no_pickle(start) -> None:
    folder = save_checkpoint(start())
    assert sorted(path.name for path in folder.iterdir()) == [
        "optimizer.safetensors",
        "pytorch_lora_weights.safetensors",
        "state.json",
    ]


def test_old_checkpoints_are_removed_beyond_the_limit(start) -> None:
    session = start(checkpoint__total_limit=2)
    for step in (2, 9, 10):
        session.step = step
        save_checkpoint(session)
    assert [path.name for path in list_checkpoints(session.config.run_folder)] == [
        "checkpoint-9",
        "checkpoint-10",
    ]
    assert len(list(session.config.run_folder.iterdir())) == 2, "nothing else is left"


@pytest.mark.parametrize(
    "name", ["pytorch_lora_weights.safetensors", "optimizer.safetensors", "state.json"]
)
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_checkpoint_is_named(start, name: str, damage: str) -> None:
    session = start()
    folder = save_checkpoint(session)
    content = bytearray((folder / name).read_bytes())
    if damage == "missing":
        (folder / name).unlink()
    elif damage == "cut":
        (folder / name).write_bytes(content[: len(content) // 2])
    else:
        place = content.index(b"0.999") + 4 if name == "state.json" else len(content) - 1
        content[place] ^= 1
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        check(folder, session)
    assert str(folder) in caught.value.message
    assert name in caught.value.message
    assert str(folder) in str(caught.value.hint)


@pytest.mark.parametrize("part", ["optimizer", "average", "optimizer.safetensors"])
def test_a_checkpoint_that_was_made_up_is_refused(start, part: str) -> None:
    """Its digests are right; what they are of is not of this training."""
    session = start(adapter__ema_decay=0.9)
    advance(session, 1)
    folder = save_checkpoint(session)
    file = folder / "state.json"
    state = json.loads(file.read_text())
    del state["state"]
    if part in state:
        state[part] = {"__items__": [["a", {"__tensor__": "none"}]]}
    else:
        (folder / part).write_bytes(b"")
        state["sha256"][part] = hashlib.sha256().hexdigest()
    digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    file.write_text(json.dumps({**state, "state": digest}))
    check(folder, session)
    with pytest.raises(ConfigError, match="does not fit"):
        load_checkpoint(session, folder)


def test_other_settings_are_refused_by_name(start, settings) -> None:
    session = start()
    folder = save_checkpoint(session)
    other = settings(optimizer__learning_rate=0.5, adapter__rank=8, seed=3)
    with pytest.raises(ConfigError) as caught:
        check_checkpoint(folder, other, session.inputs, session.accelerator)
    for text in ("optimizer.learning_rate (was 0.001, is 0.5)", "adapter.rank (was 4, is 8)"):
        assert text in caught.value.message
    assert "seed (was 0, is 3)" in caught.value.message


def test_other_images_are_refused(start) -> None:
    session = start()
    folder = save_checkpoint(session)
    with pytest.raises(ConfigError, match="images"):
        check_checkpoint(folder, session.config, InputHashes("other"), session.accelerator)


def test_the_images_that_changed_are_named(start, settings, tmp_path) -> None:
    import hublora

    folder = save_images(tmp_path / "images", 4)
    config = settings(
        data__dataset=None,
        data__folder=folder,
        checkpoint__steps=1,
        schedule__max_train_steps=2,
        validation__num_images=1,
    )
    hublora.train(config)
    (folder / "0.png").write_bytes((folder / "1.png").read_bytes())
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace("a red star", "a blue star")
    lines[3] = lines[3].replace("3.png", "new.png")
    (folder / "3.png").rename(folder / "new.png")
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="other images or captions") as caught:
        hublora.train(config, resume="latest")
    named = "(changed: 0.png, 2.png; new: new.png; missing: 3.png)"
    assert named in caught.value.message


def test_what_does_not_change_the_result_may_change(start, settings) -> None:
    session = start()
    folder = save_checkpoint(session)
    other = settings(
        validation__prompts=["Totoro"],
        checkpoint__steps=7,
        hub__push=True,
        output_dir=folder.parent.parent / "moved",
    )
    other = resolve_weight_decay(other, session.family)
    check_checkpoint(folder, other, session.inputs, session.accelerator)


def save_for_ever(session: Session) -> None:
    torch.set_num_threads(1)
    while True:
        session.step += 1
        save_checkpoint(session)


def test_being_killed_while_saving_leaves_only_whole_checkpoints(start) -> None:
    session = start(checkpoint__total_limit=2)
    advance(session, 1)
    run = session.config.run_folder
    save_checkpoint(session)
    rng = random.Random(0)
    for _ in range(8):
        process = multiprocessing.get_context("fork").Process(target=save_for_ever, args=[session])
        process.start()
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        found = list_checkpoints(run)
        assert found
        for folder in found:
            check(folder, session)
            digests = json.loads((folder / "state.json").read_text())["sha256"]
            assert all(sha256_of(folder / name) == digest for name, digest in digests.items())
        visible = sorted(run.glob("checkpoint-*"))
        assert visible == sorted(found), "no part of a checkpoint has a checkpoint's name"
    session.step += 100
    save_checkpoint(session)
    hidden = [path for path in run.iterdir() if path.name.startswith(".")]
    assert not hidden, "what the killed processes left is cleared away"
