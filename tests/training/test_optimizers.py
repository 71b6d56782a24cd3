"""Every optimizer trains, goes on exactly, and says what it is missing."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from hublora.errors import ConfigError
from hublora.training.checkpoint import load_checkpoint, save_checkpoint
from hublora.training.config.training_config import TrainingConfig
from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.optimizers import _PACKAGES, check_optimizer, make_schedule
from hublora.training.session import Session

NAMES = ["prodigy", "adafactor", "schedule-free", "muon"]  # adamw is everywhere else


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_goes_on_exactly(start: Callable[..., Session], name: str) -> None:
    changes = {"optimizer__name": name, "optimizer__learning_rate": None}
    whole = start(**changes)
    before = [parameter.detach().clone() for parameter in whole.parameters]
    losses = []
    for event in train(whole):
        if isinstance(event, StepDone):
            losses.append(event.loss.item())
            if event.step == 2:
                folder = save_checkpoint(whole)
                with whole.averaged():  # as a preview does
                    pass
    assert any(not torch.equal(old, new) for old, new in zip(before, whole.parameters, strict=True))
    resumed = start(**changes)
    load_checkpoint(resumed, folder)
    again = [event.loss.item() for event in train(resumed) if isinstance(event, StepDone)]
    assert again == losses[2:]
    for one, other in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("method", "base", "given", "expected"),
    [
        ("text-to-image", "bases/xl", {}, (1e-2, 1e-2)),
        ("dreambooth", "bases/epsilon", {}, (1e-2, 1e-2)),
        ("dreambooth", "bases/xl", {}, (1e-4, 1e-3)),
        ("dreambooth", "bases/xl", {"weight_decay": 0.5}, (0.5, 1e-3)),
        ("dreambooth", "bases/xl", {"text_encoder_weight_decay": 0.5}, (1e-4, 0.5)),
        ("text-to-image", "bases/epsilon", {"weight_decay": 0.5}, (0.5, 0.5)),
    ],
)
def test_weight_decay_is_that_of_the_script_of_this_method_and_base(
    start: Callable[..., Session],
    method: str,
    base: str,
    given: dict[str, float],
    expected: tuple[float, float],
) -> None:
    subject = {"dreambooth__instance_prompt": "a sks dog"} if method == "dreambooth" else {}
    session = start(
        method=method,
        base__model=base,
        adapter__text_encoder=True,
        **subject,
        **{f"optimizer__{name}": value for name, value in given.items()},
    )
    decays = {
        id(parameter): group["weight_decay"]
        for group in session.optimizer.param_groups
        for parameter in group["params"]
    }
    for name, part in session.adapted.items():
        wanted = expected[name != session.family.denoiser]
        assert {decays[id(one)] for one in part.parameters.values()} == {wanted}
    found = session.config.optimizer
    assert (found.weight_decay, found.text_encoder_weight_decay) == expected


def test_prodigy_takes_its_third_decay(start: Callable[..., Session]) -> None:
    for given, expected in ((None, None), (0.9, 0.9)):
        session = start(
            optimizer__name="prodigy", optimizer__learning_rate=None, optimizer__beta3=given
        )
        assert [group["beta3"] for group in session.optimizer.param_groups] == [expected]


def test_a_schedule_free_optimizer_is_used_with_its_average(start: Callable[..., Session]) -> None:
    session = start(optimizer__name="schedule-free", optimizer__learning_rate=1e-2)
    list(train(session))
    trained = torch.cat([p.detach().flatten() for p in session.parameters])
    with session.averaged():
        used = torch.cat([p.detach().flatten() for p in session.parameters])
    optimizer = session.optimizer.optimizer
    optimizer.eval()
    assert torch.equal(torch.cat([p.detach().flatten() for p in session.parameters]), used)
    assert not torch.equal(used, trained)


def test_muon_says_which_weights_it_cannot_train(start: Callable[..., Session]) -> None:
    with pytest.raises(ConfigError, match="matrices"):
        start(optimizer__name="muon", adapter__method="dora")


@pytest.mark.parametrize("name", _PACKAGES)
def test_a_missing_package_is_one_sentence_with_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, extra = _PACKAGES[name]
    monkeypatch.setitem(__import__("sys").modules, module, None)  # as if it were not installed
    config = TrainingConfig.from_settings({"base.model": "a/b", "optimizer.name": name})
    with pytest.raises(ConfigError) as caught:
        check_optimizer(config.optimizer)
    assert module in caught.value.message
    assert caught.value.hint == f"Install it: pip install 'hublora[{extra}]'"


def test_the_extras_exist() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for module, extra in _PACKAGES.values():
        assert any(requirement.startswith(module) for requirement in extras[extra])


def test_prodigy_begins_with_its_own_factor() -> None:
    config = TrainingConfig.from_settings({"base.model": "a/b", "optimizer.name": "prodigy"})
    assert config.optimizer.learning_rate == 1
    again = TrainingConfig.from_tree(config.model_dump())
    assert again == config


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "cosine_with_restarts", "num_cycles": 2}, [1, 0.5, 1, 0.5]),
        ({"name": "polynomial", "power": 2.0}, [1, 0.5625, 0.25, 0.0625]),
        ({"name": "piecewise_constant", "step_rules": "1:2,0.1"}, [1, 1, 0.1, 0.1]),
        ({"name": "constant_with_warmup", "warmup_steps": 2}, [0, 0.5, 1, 1]),
    ],
)
def test_schedules_are_diffusers_own(settings: dict[str, Any], expected: list[float]) -> None:
    config = TrainingConfig.from_settings(
        {"base.model": "a/b", **{f"schedule.{key}": value for key, value in settings.items()}}
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(config.schedule, optimizer, 4)
    rates = []
    for _ in expected:
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, abs=1e-3)


def test_the_tests_have_the_packages() -> None:
    assert find_spec("prodigyopt")
    assert find_spec("schedulefree")
