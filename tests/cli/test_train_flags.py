"""The flags of `hublora train`: frozen, translated from the diffusers scripts', all in effect."""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from hublora.cli import diffusers_flags
from hublora.cli.diffusers_flags import REFUSED, WITHOUT_EFFECT, translate_flags
from hublora.cli.main import COMMANDS
from hublora.cli.main import hublora as root
from hublora.cli.suggestions import OF_TRAINING, OF_USE
from hublora.cli.train import train
from hublora.cli.train_flags import given_settings
from hublora.errors import ConfigError
from hublora.flag_names import TRAINING_FLAGS
from hublora.refs import AdapterRef
from hublora.training.config.foreign_names import FOREIGN_NAMES
from hublora.training.config.sections import BlockOffload
from hublora.training.config.training_config import TrainingConfig, setting_names

FROZEN = Path(__file__).with_name("train_flags.txt")

# The command of https://huggingface.co/blog/lora, with the flags of its successors.
PUBLISHED = {
    "pretrained_model_name_or_path": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "base.model"),
    "dataset_name": ("lambdalabs/naruto-blip-captions", "data.dataset"),
    "dataloader_num_workers": ("8", "data.num_workers"),
    "resolution": ("512", "data.resolution"),
    "center_crop": (None, "data.center_crop"),
    "random_flip": (None, "data.random_flip"),
    "train_batch_size": ("1", "train_batch_size"),
    "gradient_accumulation_steps": ("4", "gradient_accumulation_steps"),
    "max_train_steps": ("15000", "schedule.max_train_steps"),
    "learning_rate": ("1e-04", "optimizer.learning_rate"),
    "max_grad_norm": ("1", "optimizer.max_grad_norm"),
    "lr_scheduler": ("cosine", "schedule.name"),
    "lr_warmup_steps": ("0", "schedule.warmup_steps"),
    "output_dir": ("runs/naruto", "output_dir"),
    "push_to_hub": (None, "hub.push"),
    "hub_model_id": ("naruto-lora", "hub.model_id"),
    "report_to": ("wandb", "report_to"),
    "checkpointing_steps": ("500", "checkpoint.steps"),
    "validation_prompt": ("Totoro", "validation.prompts"),
    "seed": ("1337", "seed"),
    "mixed_precision": ("fp16", "mixed_precision"),
    "rank": ("16", "adapter.rank"),
}
SETTLED = {
    "base.model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "data.dataset": "lambdalabs/naruto-blip-captions",
    "data.num_workers": 8,
    "data.resolution": 512,
    "data.center_crop": True,
    "data.random_flip": True,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "schedule.max_train_steps": 15000,
    "optimizer.learning_rate": 1e-4,
    "optimizer.max_grad_norm": 1.0,
    "schedule.name": "cosine",
    "schedule.warmup_steps": 0,
    "output_dir": Path("runs/naruto"),
    "hub.push": True,
    "hub.model_id": "naruto-lora",
    "report_to": ["wandb"],
    "checkpoint.steps": 500,
    "validation.prompts": ["Totoro"],
    "seed": 1337,
    "mixed_precision": "fp16",
    "adapter.rank": 16,
}


def parse(args: list[str]) -> tuple[TrainingConfig, str | None]:
    """Return the settings and the checkpoint that a command line asks for; trains nothing."""
    values = train.make_context("train", list(args)).params
    resume, file, assignments = (values.pop(k) for k in ("resume", "config_file", "assignments"))
    for other in ("dry_run", "fit", "made_from"):
        values.pop(other)
    return TrainingConfig.from_settings(given_settings(file, assignments, values)), resume


def setting(config: TrainingConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("dashes", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_the_published_command_line_means_the_same_here(dashes: bool, joined: bool) -> None:
    args = []
    for name, (value, _) in PUBLISHED.items():
        flag = "--" + (name.replace("_", "-") if dashes else name)
        args += [flag] if value is None else [f"{flag}={value}"] if joined else [flag, value]
    config, _ = parse(args)
    found = {key: setting(config, key) for _, key in PUBLISHED.values()}
    assert found == SETTLED


def test_a_folder_of_images_and_the_optimizers_flags_are_translated() -> None:
    config, resume = parse(
        [
            "--pretrained_model_name_or_path=a/b",
            "--train_data_dir",
            "images",
            "--adam_beta1=0.8",
            "--adam_beta2",
            "0.95",
            "--adam-weight-decay",
            "1e-03",
            "--adam_epsilon=1e-07",
            "--use_8bit_adam",
            "--image_interpolation_mode",
            "bicubic",
            "--resume_from_checkpoint",
            "checkpoint-500",
        ]
    )
    assert str(config.data.folder) == "images"
    named = parse(["--base=a/b", "--dataset_name=c/d", "--dataset_config_name=e"])[0]
    assert named.data.config_name == "e"
    assert config.data.interpolation == "bicubic"
    optimizer = config.optimizer
    assert (optimizer.beta1, optimizer.beta2) == (0.8, 0.95)
    assert (optimizer.weight_decay, optimizer.epsilon) == (1e-3, 1e-7)
    assert optimizer.name == "adamw-8bit"
    assert resume == "checkpoint-500"


def test_the_flags_are_frozen() -> None:
    """A new setting is reached with --set; a new flag is a decision that changes this file."""
    flags = sorted(flag for parameter in train.params for flag in parameter.opts)
    tables = (diffusers_flags.RENAMED, diffusers_flags.TO_SETTING, diffusers_flags.SWITCHES)
    flags += sorted(f"{old} = {new}" for table in tables for old, new in table.items())
    assert "\n".join(flags) + "\n" == FROZEN.read_text()


# Flags of the scripts, one a line: script, flag, kind of value.
SCRIPT_FLAGS = [
    line.split()
    for line in Path(__file__).with_name("diffusers_flags.txt").read_text().splitlines()
    if not line.startswith("#")
]
VALUES = {
    "int": "64",
    "float": "0.5",
    "bool": "True",
    "precision": "fp16",
    "list": "a.png",
    "--lr_scheduler": "constant",
    "--image_interpolation_mode": "bicubic",
    "--optimizer": "AdamW",
    "--resume_from_checkpoint": "latest",
    "--report_to": "tensorboard",
}


@pytest.mark.parametrize(("flag", "kind"), sorted({(flag, kind) for _, flag, kind in SCRIPT_FLAGS}))
def test_every_flag_of_the_scripts_is_set_or_refused(
    flag: str, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    value = VALUES.get(flag, VALUES.get(kind, "some/name"))
    args = [flag] if kind == "switch" else [flag, value]
    base = [] if flag == "--pretrained_model_name_or_path" else ["--base=a/b"]
    name = flag.replace("_", "-")
    if name in REFUSED:
        with pytest.raises(click.UsageError, match=name):
            parse([*base, *args])
        return
    needed = NEEDED.get(diffusers_flags.RENAMED.get(name, name), [])
    before = parse([*base, *needed])[0] if base else None
    config, resume = parse([*base, *needed, *args])
    if name in WITHOUT_EFFECT:
        assert config == before
        assert f"{name} has no effect" in capsys.readouterr().err
    elif name == "--hub-token":
        assert os.environ["HF_TOKEN"] == value
    else:
        same = ("--optimizer", "--with_prior_preservation")  # the default; what it needs has it
        assert config != before or resume or flag in same


def test_no_flag_of_the_scripts_is_in_two_tables() -> None:
    tables = [
        diffusers_flags.RENAMED,
        diffusers_flags.TO_SETTING,
        diffusers_flags.SWITCHES,
        WITHOUT_EFFECT,
        REFUSED,
        TRAINING_FLAGS,
    ]
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--use_lora_dora", None),
        ("--network_dim", "--rank"),
        ("--lr", "--learning-rate"),
        ("--train-text-encoders", "--train-text-encoder"),
        ("--rnak", "--rank"),
        ("--sedes", None),
        ("--validation-image", "--num-validation-images"),
    ],
)
def test_an_unknown_flag_is_answered_by_meaning(
    hublora_cli: Callable[..., Any], typed: str, meant: str | None
) -> None:
    done = hublora_cli("train", "--base=a/b", typed, "1")
    name = typed.replace("_", "-")
    hint = f" Did you mean {meant}?" if meant else ""
    assert done.err.splitlines()[-1] == f"Error: No such option {name!r}.{hint}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["run", "--cfg-scale"], "--guidance"),
        (["run", "--num_inference_steps"], "--steps"),
        (["run", "--sampler"], "--scheduler"),
        (["run", "--num_images"], "--num-images"),
        (["run", "--negative"], "--negative-prompt"),
        (["compose", "--method"], "--merge"),
        (["compose", "--hub-model-id"], "--push-to-hub"),
        (["convert", "--format"], "--to"),
        (["search", "--count"], "--limit"),
        (["cache", "rm", "--older"], "--older-than"),
        (["hub", "--prot"], "--port"),
        (["push", "--xyz"], None),
    ],
)
def test_unknown_flags_of_other_commands_are_answered_by_meaning(
    hublora_cli: Callable[..., Any], typed: list[str], meant: str | None
) -> None:
    done = hublora_cli(*typed, "3")
    hint = f" Did you mean {meant}?" if meant else ""
    assert done.status == 2
    assert done.err.splitlines()[-1] == f"Error: No such option {typed[-1]!r}.{hint}"


def test_flags_by_another_name_exist_where_they_lead() -> None:
    flags = {
        flag
        for name in COMMANDS
        for parameter in getattr(import_module(COMMANDS[name][0]), name).params
        for flag in parameter.opts
    }
    assert {there for meant in OF_USE.values() for there in meant} <= flags


def test_every_setting_is_listed_with_values_default_and_flag(
    hublora_cli: Callable[..., Any],
) -> None:
    done = hublora_cli("train", "--list-settings", "--json")
    listed = {one["key"]: one for one in json.loads(done.out)}
    assert set(listed) == set(setting_names())
    rank = listed["adapter.rank"]
    assert (rank["default"], rank["flag"]) == ("4", "--rank")
    assert listed["adapter.alpha"]["default"] == "follows other settings"
    assert listed["seed"]["values"].startswith("integer from 0")
    assert "dora" in listed["adapter.method"]["values"]
    assert all(one["about"] for one in listed.values())
    text = hublora_cli("train", "--list-settings").out
    assert all(f"  {key}  [" in text for key in listed)


def test_help_shows_defaults_of_zero_and_cuts_no_sentence(hublora_cli: Callable[..., Any]) -> None:
    for flag in ("--seed", "--keep-tags", "--caption-dropout", "--noise-offset"):
        text = hublora_cli("train", "--help").out.split(f"  {flag} ")[1].split("\n  --")[0]
        assert "[default: 0" in text, flag
    for command in ("run", "compose", "outdated"):
        (text,) = hublora_cli(command, "--help").out.split("--seed INTEGER")[1:]
        assert "[default: 0" in " ".join(text.split())
    for group in ("cache", "hub", "hub repo", "hub token", "hub user"):
        assert "..." not in hublora_cli(*group.split(), "--help").out.replace("[ARGS]...", "")


KOHYA = """
[model_arguments]
pretrained_model_name_or_path = "a/b"
v2 = false

[additional_network_arguments]
network_dim = 16
unet_lr = 1e-4

[dataset_arguments]
train_data_dir = "x"
"""


def test_a_config_of_another_tool_names_the_settings_here(
    hublora_cli: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "kohya.toml").write_text(KOHYA)
    done = hublora_cli("train", "--config", str(tmp_path / "kohya.toml"))
    assert done.status == 1
    assert "model_arguments.pretrained_model_name_or_path is base.model" in done.err
    assert "network_dim is adapter.rank" in done.err
    assert "unet_lr is optimizer.learning_rate" in done.err
    assert "Unknown here: model_arguments.v2." in done.err
    assert set(FOREIGN_NAMES.values()) <= set(setting_names())


def test_a_flag_by_another_name_leads_to_one_that_is_there() -> None:
    flags = {flag for parameter in train.params for flag in parameter.opts}
    for there in OF_TRAINING.values():
        flag, _, assignment = there.partition(" ")
        assert flag in flags
        if flag == "--set":
            assert assignment.partition("=")[0] in setting_names()


def example(annotation: Any, default: Any) -> tuple[str | None, Any]:
    """Return a value to type for a setting of this type, and what it is then; not the default."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    if annotation is bool:
        return None, True
    if typing.get_origin(annotation) is typing.Literal:
        choice = next(one for one in typing.get_args(annotation) if one != default)
        return choice, choice
    if typing.get_origin(annotation) is list:
        return "wandb", ["wandb"]
    if annotation is int:
        return "64", 64
    if annotation is float:
        return "0.25", 0.25
    if annotation == BlockOffload:
        return "blocks:3", "blocks:3"
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if annotation is AdapterRef:
        return "some/name", AdapterRef.parse("some/name")
    return ("some/name", annotation("some/name"))


# Flags that mean nothing alone -> what they are given with.
PROMPT = "--set=dreambooth.instance_prompt=a sks dog"
SUBJECT = ["--method=dreambooth", PROMPT, "--with-prior-preservation", "--class-prompt=a dog"]
NEEDED = {
    "--dataset-config": ["--dataset", "a/b"],
    "--dataset-revision": ["--dataset", "a/b"],
    "--keep-tags": ["--shuffle-tags"],
    "--preserve": ["--trigger", "sks dog"],
    "--streaming": ["--dataset", "a/b", "--max-train-samples", "9"],
    **dict.fromkeys(("--class-data-dir", "--num-class-images", "--prior-loss-weight"), SUBJECT),
    "--instance-prompt": SUBJECT[:2],
    "--text-encoder-lr": ["--train-text-encoder"],
    "--adam-weight-decay-text-encoder": ["--train-text-encoder"],
    "--prodigy-beta3": ["--optimizer", "prodigy"],
    "--lr-num-cycles": ["--lr-scheduler=cosine_with_restarts"],
    "--lr-power": ["--lr-scheduler=polynomial"],
    "--with-prior-preservation": SUBJECT,
    "--checkpoint-to-hub": ["--hub-model-id=me/lora"],
    "--method": ["--caption-column=text"],
    "--class-prompt": [*SUBJECT, "--set=dreambooth.class_prompt=a cat"],
    "--placeholder-token": ["--method=pivotal", "--set=tokens.placeholders=[<a>]"],
    "--initializer-token": ["--method=pivotal", "--placeholder-token=<a>"],
}

# Flag -> the settings whose default follows it.
FOLLOWING = {
    "--rank": ("adapter.alpha",),
    "--seed": ("data.seed",),
    "--num-train-epochs": ("schedule.max_train_steps",),
    "--instance-prompt": ("adapter.trigger_words",),
    "--placeholder-token": ("adapter.trigger_words",),
}


@pytest.mark.parametrize(
    "flag", sorted(TRAINING_FLAGS.keys() - {"--with-prior-preservation", "--preset"})
)
def test_a_flag_sets_its_setting_and_nothing_else(flag: str) -> None:
    least = ["--base", "a/b", *NEEDED.get(flag, [])]
    plain = parse(least)[0]
    *sections, name = TRAINING_FLAGS[flag].split(".")
    model: Any = TrainingConfig
    for section in sections:
        model = model.model_fields[section].annotation
    field = model.model_fields[name]
    text, meant = example(field.annotation, field.default)
    changed = parse(least + [flag] + ([text] if text is not None else []))[0]
    different = [key for key in setting_names() if setting(changed, key) != setting(plain, key)]
    assert sorted(different) == sorted([TRAINING_FLAGS[flag], *FOLLOWING.get(flag, ())])
    assert setting(changed, TRAINING_FLAGS[flag]) == meant


def test_prior_preservation_is_a_flag_that_needs_a_class() -> None:
    config = parse(["--base=a/b", *SUBJECT])[0]
    assert config.dreambooth.prior_preservation
    assert config.dreambooth.class_prompt == "a dog"


def test_several_values_are_given_by_repeating_the_flag() -> None:
    config = parse(["--base=a/b", "--validation-prompt=x", "--validation_prompt", "y z"])[0]
    assert config.validation.prompts == ["x", "y z"]


def test_flags_win_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("base: {model: a/b}\nseed: 1\nadapter: {rank: 1, alpha: 1}\n")
    args = ["--config", str(file), "--set", "adapter.rank=2", "--set", "adapter.alpha=2"]
    config = parse([*args, "--alpha", "3"])[0]
    assert (config.seed, config.adapter.rank, config.adapter.alpha) == (1, 2, 3)


def test_resume_takes_a_checkpoint_or_none() -> None:
    assert parse(["--base=a/b"])[1] is None
    assert parse(["--resume", "--base=a/b"])[1] == "latest"
    assert parse(["--base=a/b", "--resume"])[1] == "latest"
    assert parse(["--base=a/b", "--resume", "checkpoint-2"])[1] == "checkpoint-2"
    assert parse(["--base=a/b", "--resume_from_checkpoint=latest"])[1] == "latest"


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--set", "adapter.rnak=4"], "Did you mean adapter.rank?"),
        (["--set", "rank=4"], "Did you mean adapter.rank?"),
        (["--set", "optimizer"], "key=value"),
        (["--set", "adapter.rank=[1"], "adapter.rank"),
        (["--set", "adapter.rank=many"], "cannot be 'many'"),
        (["--set", "seed.x=1"], "seed"),
        (["--rank", "0"], "'adapter.rank' cannot be 0"),
        (["--adam_beta1"], "optimizer.beta1"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(args: list[str], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(["--base=a/b", *args])
    assert word in str(caught.value)


def test_a_missing_base_is_said_so() -> None:
    with pytest.raises(ConfigError, match=r'base="stable-diffusion-v1-5/'):
        parse([])


@pytest.mark.parametrize("args", [["--rnak", "4"], ["--rank"], ["--lr-scheduler", "x"], ["stray"]])
def test_a_wrong_usage_is_clicks(args: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(["--base=a/b", *args])


def test_what_follows_two_dashes_is_left_alone() -> None:
    assert translate_flags(["--dataset_name", "a", "--", "--dataset_name"]) == [
        "--dataset",
        "a",
        "--",
        "--dataset_name",
    ]


def test_every_command_shows_examples() -> None:
    from click import Context, Group

    def check(command: click.Command, context: Context) -> None:
        if command is not root:
            assert "Examples:\n" in command.get_help(context), command.name
            assert f"hublora {context.command_path.partition(' ')[2]}" in command.get_help(context)
        if isinstance(command, Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                assert below.short_help or below.help
                check(below, Context(below, context, name))

    check(root, Context(root, info_name="hublora"))


def test_the_suggested_run_command_has_the_placeholders_in_its_prompt() -> None:
    from hublora.cli.train import _use_line

    words = {"method": "pivotal", "tokens.placeholders": ["<my-dog>"]}
    config = TrainingConfig.from_settings({"base.model": "a/b", **words})
    assert _use_line("runs/my dog", config) == "Use it: hublora run 'runs/my dog' '<my-dog> …'"
