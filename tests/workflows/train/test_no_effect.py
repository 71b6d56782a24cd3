"""Settings that could have no effect are refused before anything is encoded."""

from __future__ import annotations

from typing import Any

import pytest

import hublora
from hublora.errors import ConfigError

WORD = {"tokens.placeholders": ["<toy>"]}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (  # 2 epochs of 6 images are 12 steps
            {"schedule.num_train_epochs": 2, "schedule.warmup_steps": 12},
            ("--lr-warmup-steps", "12 steps", "got 12"),
        ),
        (  # of 10 steps the adapter is trained in 6
            {
                "method": "pivotal",
                **WORD,
                "schedule.max_train_steps": 10,
                "schedule.warmup_steps": 6,
            },
            ("--lr-warmup-steps", "6 steps that train the adapter"),
        ),
        (
            {"method": "pivotal", **WORD, "schedule.num_train_epochs": 1, "tokens.first_steps": 6},
            ("tokens.first_steps", "6 steps"),
        ),
        ({"adapter.trigger_words": ["sks thing"]}, ("--trigger", "'sks thing'")),
        (
            {
                "method": "textual-inversion",
                "tokens.placeholders": ["<a>", "<b>"],
                "tokens.num_vectors": 64,
            },
            ("--num-vectors", "128"),
        ),
    ],
)
def test_it_is_refused_with_the_numbers(
    hub: object, tmp_path: Any, changes: dict[str, Any], names: tuple[str, ...]
) -> None:
    config = hublora.TrainingConfig.from_settings(
        {
            "base.model": "bases/epsilon",
            "data.dataset": "bases/images",
            "output_dir": tmp_path / "run",
            **changes,
        }
    )
    events: list[Any] = []
    with pytest.raises(ConfigError) as caught:
        hublora.train(config, callback=events.append)
    assert all(name in caught.value.message for name in names), caught.value.message
    assert caught.value.hint
    assert not any(getattr(event, "name", "") == "Encoding" for event in events)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"optimizer.learning_rate": 1e-12}, "higher --learning-rate"),
        (
            {"method": "textual-inversion", "tokens.placeholders": ["<toy>"]},
            "put it into one, e.g. --validation-prompt '<toy>'",
        ),
        ({"optimizer.learning_rate": 0.1}, None),
    ],
)
def test_a_training_that_changed_nothing_says_so_at_its_end(
    hub: object, tmp_path: Any, changes: dict[str, Any], remedy: str | None
) -> None:
    config = hublora.TrainingConfig.from_settings(
        {
            "base.model": "bases/epsilon",
            "data.dataset": "bases/images",
            "output_dir": tmp_path / "run",
            "schedule.max_train_steps": 2,
            "validation.prompts": ["a red star"],
            "validation.num_images": 1,
            **changes,
        }
    )
    events: list[Any] = []
    result = hublora.train(config, callback=events.append)
    assert (result.change < 0.1) is (remedy is not None)
    said = str(events[-1])
    assert ("changed nothing that can be seen" in said) is (remedy is not None)
    assert remedy is None or remedy in events[-1].text
