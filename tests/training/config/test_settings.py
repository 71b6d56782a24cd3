"""Wrong settings are refused by name, before any long work; right ones come from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import hublora
from hublora.errors import ConfigError
from hublora.training.config.training_config import TrainingConfig


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("adapter.ranks", "adapter.rank"),
        ("learning_rate", "optimizer.learning_rate"),
        ("sede", "seed"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("base.modle", "base.model"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(key: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_settings({"base.model": "a/b", key: 1})
    assert repr(key) in caught.value.message
    assert caught.value.hint == f"Did you mean {nearest}?"


def test_a_misspelt_key_is_reported_before_the_missing_one() -> None:
    with pytest.raises(ConfigError, match=r"base\.modle"):
        TrainingConfig.from_settings({"base.modle": "a/b"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32),
        ("optimizer.learning_rate", float("inf")),
        ("adapter.alpha", float("nan")),
        ("objective.noise_offset", float("inf")),
    ],
)
def test_a_number_that_cannot_work_is_refused_at_once(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        TrainingConfig.from_settings({"base.model": "a/b", key: value})


def test_a_value_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'adapter\.rank' cannot be 0"):
        TrainingConfig.from_settings({"base.model": "a/b", "adapter.rank": 0})


def test_a_missing_base_says_how_to_name_one() -> None:
    with pytest.raises(ConfigError, match="base") as caught:
        TrainingConfig.from_settings({"seed": 1})
    assert "--base" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", "base: {model: a/b}\nseed: 3\n"), ("a.toml", 'seed = 3\n[base]\nmodel = "a/b"\n')],
)
def test_settings_come_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    config = TrainingConfig.from_file(tmp_path / name)
    assert (config.base.model, config.seed) == ("a/b", 3)


@pytest.mark.parametrize("text", ["base: [", "- 1\n", ""])
def test_a_file_without_settings_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        TrainingConfig.from_file(tmp_path / "a.yaml")


def refusal(config: TrainingConfig) -> tuple[ConfigError, list[object]]:
    """Return why a training is refused, and the events until then."""
    events: list[object] = []
    with pytest.raises(ConfigError) as caught:
        hublora.train(config, callback=events.append)
    assert not any(getattr(one, "name", "") == "Encoding" for one in events), "no long work before"
    return caught.value, events


def test_a_target_that_matches_nothing_lists_those_there_are(settings: Callable) -> None:
    error, _ = refusal(settings(adapter__targets=["to_q", "to_z"]))
    assert "'to_z'" in error.message
    for target in ("to_q", "to_out.0", "conv1", "proj_in"):
        assert target in str(error.hint)


def test_a_resolution_that_does_not_fit_names_its_neighbours(settings: Callable) -> None:
    error, _ = refusal(settings(data__resolution=65))
    assert "65 is not a multiple of 8" in error.message
    assert error.hint == "Use --resolution 64 or 72."


def test_a_step_of_buckets_that_does_not_fit_names_one_that_does(settings: Callable) -> None:
    error, _ = refusal(settings(data__aspect_buckets=True, data__bucket_step=12))
    assert "data.bucket_step 12 is not a multiple of 8" in error.message
    assert error.hint == "Leave it out for 8."


def test_a_side_that_the_denoiser_cannot_halve_is_trained(settings: Callable) -> None:
    result = hublora.train(settings(data__resolution=72, schedule__max_train_steps=1))
    assert result.final_loss > 0  # of 18 × 18 latents, halved to 9 × 9


def test_half_precision_without_a_gpu_is_refused(settings: Callable) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    error, events = refusal(settings(mixed_precision="fp16"))
    assert "fp16 needs a GPU" in error.message
    assert not events


def test_an_optimizer_that_is_not_installed_says_how_to_install_it(settings: Callable) -> None:
    pytest.importorskip("torch")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        error, _ = refusal(settings(optimizer__name="adamw-8bit"))
        assert error.hint == "Install it: pip install 'hublora[8bit]'"
    else:
        pytest.skip("bitsandbytes is installed")


def test_a_diverged_training_stops_and_says_so(settings: Callable) -> None:
    with pytest.raises(ConfigError, match="diverged") as caught:
        hublora.train(
            settings(
                optimizer__learning_rate=1e30,
                optimizer__max_grad_norm=1e30,
                schedule__max_train_steps=20,
                schedule__name="constant",
            )
        )
    assert "--learning-rate" in str(caught.value.hint)


def test_the_seed_of_the_crops_is_the_trainings_unless_it_has_its_own(settings: Callable) -> None:
    from hublora.workflows.train.destination import resolve_destination

    assert resolve_destination(settings(seed=5), None).data.seed == 5
    assert resolve_destination(settings(seed=5, data__seed=7), None).data.seed == 7


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("config.yaml", "[" * 100_000, "nested more than 24 levels deep"),
        ("config.yaml", "a: &x {b: *x}", "stands for nothing finished"),
        ("config.toml", "a." * 5000 + "a = 1", "nested too deeply"),
    ],
)
def test_a_file_that_holds_too_much_of_itself_is_a_sentence(
    name: str, text: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        TrainingConfig.from_file(file)
