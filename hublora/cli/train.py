"""`hublora train`: every flag is a row of a table that names the setting it sets."""

from __future__ import annotations

import os
import types
import typing
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel

from hublora.cli.output import out, output_flags
from hublora.errors import ConfigError
from hublora.refs import is_repo
from hublora.training.config import TrainingConfig, flatten, read_settings_file

if typing.TYPE_CHECKING:
    from hublora.workflows.plan import Plan

# Flag -> setting. Frozen by tests/cli/test_train_flags.py: a new setting is reached with --set.
FLAGS = {
    "--preset": "preset",
    "--method": "method",
    "--base": "base.model",
    "--revision": "base.revision",
    "--dataset": "data.dataset",
    "--dataset-config": "data.config_name",
    "--dataset-revision": "data.revision",
    "--split": "data.split",
    "--streaming": "data.streaming",
    "--folder": "data.folder",
    "--archive": "data.archive",
    "--image-column": "data.image_column",
    "--caption-column": "data.caption_column",
    "--masks": "data.masks",
    "--repeats": "data.repeats",
    "--max-train-samples": "data.max_train_samples",
    "--resolution": "data.resolution",
    "--center-crop": "data.center_crop",
    "--aspect-buckets": "data.aspect_buckets",
    "--random-flip": "data.random_flip",
    "--caption-dropout": "data.caption_dropout",
    "--shuffle-tags": "data.shuffle_tags",
    "--keep-tags": "data.keep_tags",
    "--tag-dropout": "data.tag_dropout",
    "--num-workers": "data.num_workers",
    "--strict": "data.strict",
    "--rank": "adapter.rank",
    "--alpha": "adapter.alpha",
    "--target": "adapter.targets",
    "--train-text-encoder": "adapter.text_encoder",
    "--trigger": "adapter.trigger_words",
    "--instance-prompt": "dreambooth.instance_prompt",
    "--with-prior-preservation": "dreambooth.prior_preservation",
    "--class-prompt": "dreambooth.class_prompt",
    "--class-data-dir": "dreambooth.class_folder",
    "--num-class-images": "dreambooth.num_class_images",
    "--prior-loss-weight": "dreambooth.prior_weight",
    "--placeholder-token": "tokens.placeholders",
    "--initializer-token": "tokens.initializers",
    "--num-vectors": "tokens.num_vectors",
    "--learnable-property": "tokens.property",
    "--train-batch-size": "train_batch_size",
    "--gradient-accumulation-steps": "gradient_accumulation_steps",
    "--gradient-checkpointing": "gradient_checkpointing",
    "--max-train-steps": "schedule.max_train_steps",
    "--num-train-epochs": "schedule.num_train_epochs",
    "--learning-rate": "optimizer.learning_rate",
    "--lr-scheduler": "schedule.name",
    "--lr-warmup-steps": "schedule.warmup_steps",
    "--optimizer": "optimizer.name",
    "--max-grad-norm": "optimizer.max_grad_norm",
    "--snr-gamma": "objective.snr_gamma",
    "--noise-offset": "objective.noise_offset",
    "--mixed-precision": "mixed_precision",
    "--seed": "seed",
    "--validation-prompt": "validation.prompts",
    "--negative-prompt": "validation.negative_prompt",
    "--num-validation-images": "validation.num_images",
    "--validation-steps": "validation.steps",
    "--validation-epochs": "validation.epochs",
    "--checkpointing-steps": "checkpoint.steps",
    "--checkpoints-total-limit": "checkpoint.total_limit",
    "--checkpoint-to-hub": "checkpoint.to_hub",
    "--output-dir": "output_dir",
    "--report-to": "report_to",
    "--push-to-hub": "hub.push",
    "--hub-model-id": "hub.model_id",
    "--private": "hub.private",
}

# Names that the diffusers training scripts use -> what stands for them here.
DIFFUSERS_FLAGS = {
    "--pretrained-model-name-or-path": "--base",
    "--dataset-name": "--dataset",
    "--dataset-config-name": "--dataset-config",
    "--train-data-dir": "--folder",
    "--instance-data-dir": "--folder",
    "--dataloader-num-workers": "--num-workers",
    "--resume-from-checkpoint": "--resume",
    "--image-interpolation-mode": "--set=data.interpolation",
    "--adam-beta1": "--set=optimizer.beta1",
    "--adam-beta2": "--set=optimizer.beta2",
    "--adam-weight-decay": "--set=optimizer.weight_decay",
    "--adam-epsilon": "--set=optimizer.epsilon",
    "--use-8bit-adam": "--set=optimizer.name=adamw-8bit",
}

EXAMPLES = """
\b
Examples:
  hublora train --base stable-diffusion-v1-5/stable-diffusion-v1-5 \\
      --dataset lambdalabs/naruto-blip-captions --validation-prompt "Totoro" \\
      --push-to-hub --hub-model-id me/naruto-lora
  hublora train --base … --folder ./pictures --trigger "sks dog" --rank 16
  hublora train --method dreambooth --base … --folder ./dog \\
      --instance-prompt "a photo of sks dog" \\
      --with-prior-preservation --class-prompt "a photo of a dog"
  hublora train --method pivotal --base … --folder ./dog \\
      --placeholder-token "<my-dog>" --initializer-token dog
  hublora train --base … --folder ./tagged --aspect-buckets --shuffle-tags --keep-tags 1
  hublora train --base … --dataset someone/millions --streaming --max-train-samples 20000
  hublora train --preset style --base … --folder ./paintings --dry-run
  hublora train --config run.yaml --set optimizer.weight_decay=0
  hublora train … --output-dir runs/naruto-lora --resume
  hublora train … --push-to-hub --hub-model-id me/naruto-lora --checkpoint-to-hub
  hublora train --resume me/naruto-lora
  hublora train … --train-batch-size 8 --fit 6
  hublora train … --dry-run
  hublora train --from someone/naruto-lora --rank 16

The flags of the diffusers training scripts work too (--pretrained_model_name_or_path,
--dataset_name, …), written with _ or -.
"""


class TrainCommand(click.Command):
    """Accepts flags with _ for -, and the names that the diffusers scripts use."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, translate_flags(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags by the section of the settings that they belong to."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section, dots, _ = (parameter.name or "").partition("__")
                known = TrainingConfig.model_fields
                title = section if dots else "run" if section in known else "other"
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title.capitalize()):
                formatter.write_dl(records)


def translate_flags(args: list[str]) -> list[str]:
    """Return the arguments with every flag under the name it has here.

    A flag that becomes `--set=key` takes its value along: `--adam_beta1 0.9` is
    `--set optimizer.beta1=0.9`.
    """
    translated: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return [*translated, arg, *rest]
        if not arg.startswith("--"):
            translated.append(arg)
            continue
        name, equals, value = arg.partition("=")
        name = name.replace("_", "-")
        name = DIFFUSERS_FLAGS.get(name, name)
        if not name.startswith("--set="):
            translated.append(name + equals + value)
            continue
        setting = name.removeprefix("--set=")
        if "=" not in setting:
            setting += "=" + (value if equals else next(rest, ""))
        translated += ["--set", setting]
    return translated


def _options(command: Any) -> Any:
    for flag, key in reversed(FLAGS.items()):
        command = _option(flag, key)(command)
    return command


def _option(flag: str, key: str) -> Any:
    """Return the click option for a setting: type, help and default are the setting's own."""
    *sections, name = key.split(".")
    model: type[BaseModel] = TrainingConfig
    for section in sections:
        model = typing.cast("type[BaseModel]", model.model_fields[section].annotation)
    field = model.model_fields[name]
    kind = _value_type(field.annotation)
    text = (field.description or "").rstrip(".")
    shown = field.default not in (None, False, [], "") and not field.is_required()
    default = f"  [default: {field.default}]" if shown else ""
    settings: dict[str, Any] = {"help": text + "." + default, "default": None}
    parameter = key.replace(".", "__")  # click wants an identifier
    if kind is bool:
        return click.option(flag, parameter, is_flag=True, **settings)
    multiple = typing.get_origin(kind) is list
    if multiple:
        settings["help"] = f"{text}; may be repeated."
        kind = str
    elif typing.get_origin(kind) is typing.Literal:
        kind = click.Choice([str(choice) for choice in typing.get_args(kind)])
    elif kind is Path:
        kind = click.Path(path_type=Path)
    return click.option(flag, parameter, type=kind, multiple=multiple, **settings)


def _value_type(annotation: Any) -> Any:
    """Return the type of a setting without its `| None`."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return next(arg for arg in typing.get_args(annotation) if arg is not type(None))
    return annotation


@click.command(cls=TrainCommand, epilog=EXAMPLES)
@_options
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[CHECKPOINT|REPO]",
    help="Go on from a checkpoint; the latest one unless named. Of a repo that --checkpoint-to-hub "
    "wrote to, on any machine, with the settings kept there.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings from a YAML or TOML file; flags win over it.",
)
@click.option(
    "--from",
    "made_from",
    metavar="ADAPTER",
    help="Train again as this repo or run folder says it was; what else is given wins over it.",
)
@click.option(
    "--fit",
    is_flag=False,
    flag_value="device",
    metavar="[GIB]",
    help="Choose batch, accumulation and gradient checkpointing by measuring what fits into so "
    "many GiB, the device's by default, and is fastest; a step keeps its pictures.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything and measure one step; tell what the training would need, and stop.",
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any other setting.")
@output_flags
def train(
    resume: str | None,
    config_file: Path | None,
    made_from: str | None,
    fit: str | None,
    dry_run: bool,
    assignments: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train an adapter on captioned pictures, from the Hub or a folder.

    The result is a folder with the adapter, a card, validation pictures and all that is needed to
    make it again; with --push-to-hub it becomes one verified commit on the Hub.
    """
    from hublora.cli.progress import ProgressReport

    given = given_settings(config_file, assignments, flags)
    if made_from is not None or is_repo(resume):
        given = _settings_again(made_from, given, resume)
    config = TrainingConfig.from_settings(given)
    if fit is not None:
        config = _fitted(config, fit, resume)
    if dry_run:
        _show_plan(config, resume)
        return
    if int(os.environ.get("RANK", "0")) > 0:  # of several processes, the first one speaks
        from hublora.workflows import train as workflow

        workflow(config, resume=resume)
        return
    out.note("Starting …")
    with ProgressReport() as report:
        from hublora.workflows import train as workflow

        result = workflow(config, resume=resume, observer=report)
    pushed = result.pushed
    lines = [f"The adapter is in {result.folder}"]
    if pushed is not None:
        lines = [
            f"Pushed and verified: {pushed.url}",
            f'Use it: hublora run {pushed.repo_id} "…"',
        ]
    data = {
        "folder": str(result.folder),
        "final_loss": result.final_loss,
        "seconds": result.seconds,
        "repo_id": pushed.repo_id if pushed else None,
        "commit": pushed.commit if pushed else None,
        "url": pushed.url if pushed else None,
    }
    out.result("\n".join(lines), data, [pushed.repo_id if pushed else str(result.folder)])


def _settings_again(
    made_from: str | None, given: dict[str, Any], resume: str | None
) -> dict[str, Any]:
    """Return the settings with which an adapter was made, or of a training whose checkpoint is on
    the Hub, under those that were given."""
    from hublora.cli.progress import ProgressReport

    with ProgressReport() as report:
        from hublora.workflows.keeping import read_kept
        from hublora.workflows.make import default_folder
        from hublora.workflows.recipe import read_recipe, remake

        if made_from is not None and is_repo(resume):
            raise ConfigError(
                "--from and --resume OWNER/NAME both bring settings.", "Leave one of them out."
            )
        recipe = read_kept(str(resume)) if made_from is None else read_recipe(made_from)
        if "output_dir" not in given and "hub.model_id" not in given:
            given = {**given, "output_dir": default_folder(recipe.name, resume)}
        return remake(recipe, given, report)


def _fitted(config: TrainingConfig, limit: str, resume: str | None) -> TrainingConfig:
    """Return the settings with the batch that fits into `limit` GiB, or "device"."""
    from hublora.cli.progress import ProgressReport

    try:
        gib = None if limit == "device" else float(limit.lower().removesuffix("gib"))
    except ValueError:
        gib = 0.0
    if gib is not None and not 0 < gib < float("inf"):
        raise click.BadParameter(f"{limit!r} is no size in GiB; write it like --fit 8")
    with ProgressReport() as report:
        from hublora.workflows.fitting import fit

        return fit(config, gib, resume=resume, observer=report)


def _show_plan(config: TrainingConfig, resume: str | None) -> None:
    from dataclasses import asdict

    from hublora.cli.progress import ProgressReport

    out.note("Checking …")
    with ProgressReport() as report:
        from hublora.workflows.plan import plan as workflow

        found = workflow(config, resume=resume, observer=report)
    out.result("\n".join(_plan_lines(found)), asdict(found), [str(found.steps)])


def _plan_lines(plan: Plan) -> list[str]:
    """Return what a person reads of a plan: what would be done, and what it takes."""
    defaults = TrainingConfig.from_settings({"base.model": ""}).flat()
    there_is = f" of {plan.memory_there_is / 1e9:.1f} GB" if plan.memory_there_is else ""
    held_out = f", {plan.held_out} held out" if plan.held_out else ""
    if plan.class_pictures:
        held_out += f", {plan.class_pictures} of the class to draw first"
    facts = {
        "Base": f"{plan.base} (licence: {plan.base_license or 'not stated'})",
        "Pictures": f"{plan.pictures} of {plan.dataset}{held_out} "
        f"(licence: {plan.dataset_license or 'not stated'})",
        "Training": f"{plan.weights:,} weights, {plan.steps:,} steps of {plan.images_per_step} "
        f"on {plan.device}",
        "Time": f"{_duration(plan.encode_seconds)} to encode, then {_duration(plan.train_seconds)} "
        f"to train ({plan.step_seconds:.3g} s a step), pictures not counted",
        "Memory": f"{plan.memory / 1e9:.1f} GB{there_is}",
        "Disk": f"{plan.disk / 1e9:.2f} GB of the {plan.disk_free / 1e9:.1f} GB free",
        "Pushed to": plan.push_to or "nowhere",
    }
    lines = [f"{name:<10} {value}" for name, value in facts.items()]
    most = max(plan.buckets.values(), default=1)
    if plan.buckets:
        lines += ["Shapes", *(_bar(*one, most) for one in plan.buckets.items())]
    changed = {key: value for key, value in plan.settings.items() if value != defaults[key]}
    return [*lines, "Settings", *(f"  {key}: {value}" for key, value in changed.items())]


def _bar(shape: str, count: int, most: int) -> str:
    """Return a line of a table: how many pictures are of a shape, also as a bar."""
    return f"  {shape:>9} {count:>7}  {'█' * max(1, round(30 * count / most))}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds) // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def build_config(
    config_file: Path | None, assignments: tuple[str, ...], flags: dict[str, Any]
) -> TrainingConfig:
    """Return the settings: the file's, then --set, then flags; the later wins.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    return TrainingConfig.from_settings(given_settings(config_file, assignments, flags))


def given_settings(
    config_file: Path | None, assignments: tuple[str, ...], flags: dict[str, Any]
) -> dict[str, Any]:
    """Return what was asked for, under dotted keys; see `build_config`."""
    settings = flatten(read_settings_file(config_file)) if config_file else {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment} is not of the form key=value.")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"The value of --set {key} does not parse: {value!r}.", "Put it in quotes."
            ) from error
    for key, value in flags.items():
        if value is None or value is False or value == ():
            continue
        settings[key.replace("__", ".")] = list(value) if isinstance(value, tuple) else value
    return settings
