"""Presets fill in settings; what is set explicitly wins, wherever it is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from hublora.data import DataConfig
from hublora.errors import ConfigError
from hublora.training.config.presets import PRESETS
from hublora.training.config.sections import AdapterSettings, BaseSettings
from hublora.training.config.training_config import TrainingConfig, flatten


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_its_settings_and_nothing_else(name: str) -> None:
    chosen = TrainingConfig.from_settings({"base.model": "a/b", "preset": name}).flat()
    plain = TrainingConfig.from_settings({"base.model": "a/b"}).flat()
    asked = flatten(PRESETS[name])
    assert {key: chosen[key] for key in asked} == asked
    changed = {key for key, value in chosen.items() if value != plain[key]}
    assert changed <= {*asked, "preset", "adapter.alpha"}, "alpha follows the rank"
    assert len(changed) >= 5
    documented = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    assert f"`--preset {name}`" in documented


def test_what_is_set_goes_first() -> None:
    settings = {"base.model": "a/b", "preset": "style"}
    given = {"adapter.rank": 4, "data.random_flip": False, "adapter.conv_rank": None}
    config = TrainingConfig.from_settings(settings | given)
    assert (config.adapter.rank, config.adapter.conv_rank) == (4, None)
    assert not config.data.random_flip
    assert config.data.crop_variants == 8, "the rest is the preset's"
    sections = TrainingConfig(
        preset="style",
        base=BaseSettings(model="a/b"),
        adapter=AdapterSettings(rank=4),
        data=DataConfig(random_flip=False),
    )
    assert (sections.adapter.rank, sections.adapter.conv_rank) == (4, 16)
    assert not sections.data.random_flip


def test_a_finished_runs_settings_are_not_moved_by_its_preset() -> None:
    config = TrainingConfig.from_settings({"base.model": "a/b", "preset": "face"})
    tree = config.model_dump(mode="json")
    tree["adapter"]["rank"] = 7  # as of a version whose preset was another
    assert TrainingConfig.from_tree(tree).adapter.rank == 7


def test_where_no_adapter_is_trained_a_preset_asks_for_none() -> None:
    words = {"method": "textual-inversion", "tokens.placeholders": ["<a>"], "preset": "style"}
    config = TrainingConfig.from_settings({"base.model": "a/b", **words})
    assert config.tokens.num_vectors == 4
    assert config.tokens.property == "style"


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="'preset' cannot be 'anime'"):
        TrainingConfig.from_settings({"base.model": "a/b", "preset": "anime"})
