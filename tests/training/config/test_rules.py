"""Settings that exclude each other are named when they are read, before any work."""

from __future__ import annotations

import pytest

from hublora.errors import ConfigError
from hublora.training.config.training_config import TrainingConfig

SUBJECT = {
    "method": "dreambooth",
    "dreambooth.prior_preservation": True,
    "dreambooth.class_prompt": "a dog",
}
WORDS = {"method": "textual-inversion", "tokens.placeholders": ["<a>"]}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"objective.snr_gamma": 5, "objective.debiased": True}, ("snr_gamma", "debiased")),
        ({"data.dataset": "a/b", "data.folder": "images"}, ("--dataset", "--folder")),
        (
            {"optimizer.name": "schedule-free", "schedule.name": "cosine"},
            ("schedule-free", "--lr-"),
        ),
        ({"optimizer.name": "prodigy", "optimizer.lora_plus_ratio": 2}, ("prodigy", "rate")),
        ({"schedule.name": "constant", "schedule.warmup_steps": 2}, ("constant", "--lr-warmup")),
        (
            {"schedule.warmup_steps": 5, "schedule.max_train_steps": 5},
            ("--lr-warmup-steps", "--max-train-steps"),
        ),
        ({"schedule.name": "piecewise_constant"}, ("piecewise_constant", "step_rules")),
        ({"schedule.warmup_steps": 2000}, ("--lr-warmup-steps", "--max-train-steps")),
        ({"optimizer.name": "prodigy", "optimizer.learning_rate": 1e-4}, ("prodigy", "factor")),
        ({"schedule.num_cycles": 2}, ("schedule.num_cycles", "cosine_with_restarts")),
        ({"schedule.name": "linear", "schedule.power": 2.0}, ("schedule.power", "polynomial")),
        ({"adapter.init": "pissa", "adapter.method": "dora"}, ("adapter.init", "adapter.method")),
        ({"adapter.init": "pissa", "adapter.start_from": "a/b"}, ("init", "start_from")),
        ({"adapter.method": "loha", "adapter.dropout": 0.1}, ("loha", "dropout")),
        ({"optimizer.text_encoder_learning_rate": 1}, ("text_encoder_learning_rate", "trained")),
        ({"data.mask_column": "mask"}, ("data.mask_column", "--masks")),
        ({"objective.preserve": True}, ("--preserve", "--trigger")),
        ({"objective.preserve_weight": 0.5}, ("objective.preserve_weight", "--preserve")),
        (WORDS | {"objective.preserve": True}, ("--preserve", "--method textual-inversion")),
        ({"objective.outside_mask": 0.1}, ("objective.outside_mask", "--masks")),
        ({"data.dataset": "a/b", "data.folder_repeats": True}, ("folder_repeats", "--dataset")),
        ({"data.streaming": True, "data.folder": "x"}, ("--streaming", "--dataset")),
        (
            {"data.streaming": True, "data.dataset": "a/b"},
            ("--streaming", "--max-train-samples"),
        ),
        (
            {
                "data.streaming": True,
                "data.dataset": "a/b",
                "data.max_train_samples": 9,
                "data.split": "train[:5]",
            },
            ("--streaming", "--split"),
        ),
        ({"data.dataset": "a/b", "data.archive": "x.zip"}, ("--dataset", "--archive")),
        ({"data.folder": "x", "data.config_name": "main"}, ("--dataset-config", "--folder")),
        ({"data.keep_tags": 1}, ("--keep-tags", "tags")),
        ({"data.bucket_step": 64}, ("data.bucket_step", "--aspect-buckets")),
        ({"data.folder": "images", "data.revision": "main"}, ("--dataset-revision", "--folder")),
        ({"dreambooth.instance_prompt": "sks"}, ("--instance-prompt", "--method dreambooth")),
        ({"dreambooth.prior_preservation": True}, ("--with-prior", "--method dreambooth")),
        (
            {"method": "dreambooth", "dreambooth.prior_preservation": True},
            ("--with-prior-preservation", "--class-prompt"),
        ),
        (
            {"method": "dreambooth", "dreambooth.class_prompt": "a dog"},
            ("--class-prompt", "--with-prior-preservation"),
        ),
        (
            {**SUBJECT, "dreambooth.instance_prompt": "a dog"},
            ("--instance-prompt", "--class-prompt"),
        ),
        (
            {**SUBJECT, "data.folder": "x", "dreambooth.class_folder": "x"},
            ("--class-data-dir", "--folder"),
        ),
        ({"method": "dreambooth"}, ("--method dreambooth", "--instance-prompt")),
        ({"checkpoint.to_hub": True}, ("--checkpoint-to-hub", "repo")),
        ({**WORDS, "tokens.placeholders": [""]}, ("--placeholder-token", "one word")),
        ({**WORDS, "tokens.placeholders": ["my cat"]}, ("--placeholder-token", "one word")),
        ({**WORDS, "tokens.initializers": [" "]}, ("--initializer-token", "empty")),
        ({"tokens.placeholders": ["<a>"]}, ("--placeholder-token", "--method")),
        ({"method": "pivotal"}, ("--method", "--placeholder-token")),
        ({**WORDS, "tokens.placeholders": ["<a>", "<a>"]}, ("--placeholder-token", "twice")),
        ({**WORDS, "tokens.initializers": ["a", "b"]}, ("--initializer", "--placeholder")),
        ({**WORDS, "tokens.learning_rate": 1}, ("tokens.learning_rate", "--learning-rate")),
        ({**WORDS, "adapter.rank": 16}, ("textual-inversion", "adapter")),
        (
            {**WORDS, "method": "pivotal", "optimizer.name": "prodigy", "tokens.learning_rate": 1},
            ("prodigy", "rate"),
        ),
        (
            {
                **WORDS,
                "method": "pivotal",
                "tokens.first_steps": 8,
                "schedule.max_train_steps": 8,
            },
            ("tokens.first_steps", "--max-train-steps"),
        ),
    ],
)
def test_both_are_named(settings: dict[str, object], names: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_settings({"base.model": "a/b", **settings})
    assert all(name in caught.value.message for name in names)
    assert caught.value.hint


@pytest.mark.parametrize(
    "setting",
    [
        {"validation.prompts": ["a dog", "a \udcff dog"]},
        {"adapter.trigger_words": ["\udcff"]},
        {"method": "dreambooth", "dreambooth.instance_prompt": "a \udcff dog"},
    ],
)
def test_bytes_that_are_no_text_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="is not valid UTF-8") as caught:
        TrainingConfig.from_settings({"base.model": "a/b", **setting})
    assert list(setting)[-1] in caught.value.message
    str(caught.value).encode()


@pytest.mark.parametrize(
    "settings",
    [
        {"data.folder": "x", "objective.debiased": True},
        {"data.folder": "x", "data.aspect_buckets": True, "data.center_crop": True},
        {
            "data.dataset": "a/b",
            "data.streaming": True,
            "data.max_train_samples": 9,
            "holdout.images": 2,
            "data.masks": True,
            "data.aspect_buckets": True,
        },
        {"data.folder": "x", "data.shuffle_tags": True, "adapter.text_encoder": True},
    ],
)
def test_settings_that_agree_are_taken(settings: dict[str, object]) -> None:
    config = TrainingConfig.from_settings({"base.model": "a/b", **settings})
    for key, value in settings.items():
        section, name = key.split(".")
        taken = getattr(getattr(config, section), name)
        assert (str(taken) if name == "folder" else taken) == value
