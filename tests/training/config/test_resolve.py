"""Defaults that follow other settings are filled in once, and follow them again from a record."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hublora.errors import ConfigError, RefError
from hublora.refs import AdapterRef
from hublora.training.config.resolve import DEPENDENT_DEFAULTS, without_dependent_defaults
from hublora.training.config.training_config import TrainingConfig

INSTANCE = {"method": "dreambooth", "dreambooth.instance_prompt": "a photo of sks dog"}
WORDS = {"tokens.placeholders": ["<a>", "<b>"]}
INVERSION = {"method": "textual-inversion", **WORDS}
PIVOTAL = {"method": "pivotal", **WORDS}


def config(**settings: Any) -> TrainingConfig:
    return TrainingConfig.from_settings({"base.model": "a/b", **settings})


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({}, "optimizer.learning_rate", 1e-4),
        ({"optimizer.name": "prodigy"}, "optimizer.learning_rate", 1.0),
        (INVERSION, "optimizer.learning_rate", 5e-4),
        ({**INVERSION, "optimizer.name": "prodigy"}, "optimizer.learning_rate", 1.0),
        (PIVOTAL, "tokens.learning_rate", 5e-4),
        ({**PIVOTAL, "optimizer.learning_rate": 2e-4}, "tokens.learning_rate", 1e-3),
        ({**PIVOTAL, "tokens.learning_rate": 1e-3}, "tokens.learning_rate", 1e-3),
        ({**PIVOTAL, "optimizer.name": "prodigy"}, "tokens.learning_rate", None),
        ({}, "schedule.name", "cosine"),
        ({"optimizer.name": "schedule-free"}, "schedule.name", "constant"),
        ({}, "schedule.max_train_steps", 1000),
        ({"schedule.num_train_epochs": 3}, "schedule.max_train_steps", None),
        ({}, "adapter.alpha", 4.0),
        ({"adapter.rank": 16}, "adapter.alpha", 16.0),
        ({"preset": "style"}, "adapter.alpha", 32.0),
        ({"adapter.rank": 16, "adapter.alpha": 8}, "adapter.alpha", 8.0),
        (INVERSION, "adapter.alpha", None),
        (INSTANCE, "adapter.trigger_words", ["sks dog"]),
        (PIVOTAL, "adapter.trigger_words", ["<a>", "<b>"]),
        ({**PIVOTAL, "adapter.trigger_words": ["x"]}, "adapter.trigger_words", ["x"]),
        ({}, "adapter.trigger_words", []),
        ({"seed": 5}, "data.seed", 5),
        ({"seed": 5, "data.seed": 7}, "data.seed", 7),
    ],
)
def test_a_default_follows_the_settings_that_it_depends_on(
    given: dict[str, Any], key: str, value: Any
) -> None:
    assert key in DEPENDENT_DEFAULTS
    assert config(**given).flat()[key] == value


@pytest.mark.parametrize("given", [{}, {"preset": "face"}, INSTANCE, INVERSION, PIVOTAL])
def test_a_config_that_was_written_and_read_is_the_same(given: dict[str, Any]) -> None:
    first = config(**given)
    assert TrainingConfig.from_settings(first.flat()).flat() == first.flat()


def test_a_recorded_default_follows_a_setting_that_is_replaced() -> None:
    recorded = without_dependent_defaults(config(**{"adapter.rank": 8, "seed": 3}).flat())
    again = TrainingConfig.from_settings({**recorded, "adapter.rank": 16, "seed": 4})
    assert (again.adapter.alpha, again.data.seed) == (16.0, 4)
    chosen = without_dependent_defaults(config(**{"adapter.rank": 8, "adapter.alpha": 1}).flat())
    changed = TrainingConfig.from_settings({**chosen, "adapter.rank": 16})
    assert changed.adapter.alpha == 1.0, "a chosen alpha does not change"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base.model", ""),
        ("base.model", "no-owner"),
        ("base.model", "a/b/c"),
        ("hub.model_id", "a b"),
        ("adapter.start_from", ""),
        ("adapter.start_from", "a/b:heavy"),
    ],
)
def test_a_name_that_does_not_parse_is_refused_where_it_enters(key: str, value: str) -> None:
    with pytest.raises(RefError) as caught:
        TrainingConfig.from_settings({"base.model": "a/b", key: value})
    assert caught.value.hint


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.dataset must be"):
        config(**{"data.dataset": ""})


def test_the_adapter_to_start_from_is_parsed_once_and_written_as_it_was() -> None:
    made = config(**{"adapter.start_from": "me/ink@v1:0.5"})
    assert made.adapter.start_from == AdapterRef("repo", "me/ink", "v1", None, 0.5)
    assert made.flat()["adapter.start_from"] == "me/ink@v1:0.5"


def test_a_config_is_not_changed_after_it_was_made() -> None:
    made = config()
    with pytest.raises(ValidationError, match="frozen"):
        made.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        made.adapter.rank = 3
    other = made.updated({"adapter.rank": 3, "seed": 3})
    assert (other.adapter.rank, other.seed) == (3, 3)
    assert (made.adapter.rank, made.seed) == (4, 0)
