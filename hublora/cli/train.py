"""`hublora train`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hublora.cli.early import check_base
from hublora.cli.output import out, output_flags
from hublora.cli.train_flags import TrainCommand, given_settings, setting_flags
from hublora.cli.train_plan import show_plan
from hublora.errors import ConfigError
from hublora.quoting import shell_path, shell_word
from hublora.refs import BaseRef, is_repo
from hublora.training.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from hublora.workflows.train.artifacts import TrainingResult

EXAMPLES = """
\b
Examples:
  hublora train --base stable-diffusion-v1-5/stable-diffusion-v1-5 \\
      --dataset lambdalabs/naruto-blip-captions --validation-prompt "Totoro" \\
      --push-to-hub --hub-model-id me/naruto-lora
  hublora train --base … --folder ./images --trigger "sks dog" --rank 16
  hublora train --method dreambooth --base … --folder ./dog \\
      --instance-prompt "a photo of sks dog" \\
      --with-prior-preservation --class-prompt "a photo of a dog"
  hublora train --method pivotal --base … --folder ./dog \\
      --placeholder-token "<my-dog>" --initializer-token dog
  hublora train --base … --folder ./tagged --aspect-buckets --shuffle-tags --keep-tags 1
  hublora train --base … --dataset someone/millions --streaming --max-train-samples 20000
  hublora train --preset style --base … --folder ./paintings --dry-run
  hublora train --config run.yaml --set optimizer.weight_decay=0
  hublora train --resume runs/naruto-lora
  hublora train … --push-to-hub --hub-model-id me/naruto-lora --checkpoint-to-hub
  hublora train --resume me/naruto-lora
  hublora train … --train-batch-size 8 --fit 6
  hublora train … --dry-run
  hublora train --from someone/naruto-lora --rank 16

The flags of the diffusers training scripts work too (--pretrained_model_name_or_path,
--dataset_name, …), written with _ or -.
"""


@click.command(cls=TrainCommand, epilog=EXAMPLES)
@setting_flags
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[RUN|CHECKPOINT|REPO]",
    help="Go on from the latest checkpoint of a run folder, or from a checkpoint, with the "
    "settings kept there. Of a repo that --checkpoint-to-hub wrote to, on any machine.",
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
    help="Choose what fits into so many GiB, the device's by default, and is fastest: batch, "
    "accumulation and gradient checkpointing, measured; for a transformer quantisation and block "
    "swap too, computed. A step keeps its images.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything and measure one step; tell what the training would need, and stop.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other setting; --list-settings prints them.",
)
@click.option("--list-settings", is_flag=True, help="Print every setting, and stop.")
@output_flags
def train(
    resume: str | None,
    config_file: Path | None,
    made_from: str | None,
    fit: str | None,
    dry_run: bool,
    assignments: tuple[str, ...],
    list_settings: bool,
    **flags: Any,
) -> None:
    """Train an adapter on captioned images, from the Hub or a folder.

    The result is a folder with the adapter, a card, validation images and all that is needed to
    make it again; with --push-to-hub it becomes one verified commit on the Hub.
    """
    from hublora.cli.progress import ProgressReport
    from hublora.data.source import check_there
    from hublora.workflows.train.run_settings import resume_here
    from hublora.workflows.train.signals import before_the_steps, ends_stop

    if list_settings:
        from hublora.cli.settings_list import show_settings

        show_settings()
        return
    given = given_settings(config_file, assignments, flags)
    if made_from is not None or is_repo(resume):
        config = _recorded_config(made_from, given, resume)
    else:
        if here := resume_here(resume, given):
            given, resume = here
        config = TrainingConfig.from_settings(given)
        check_there(config.data)
        check_base(config.base.model, config.base.revision)
    if fit is not None:
        config = _fitted(config, fit, resume)
    if dry_run:
        show_plan(config, resume)
        return
    if int(os.environ.get("RANK", "0")) > 0:  # of several processes, the first one speaks
        from hublora.workflows.train.train import train as workflow

        workflow(config, resume=resume)
        return
    out.note("Starting …")
    with ExitStack() as until_done:
        until_done.enter_context(ends_stop())
        with before_the_steps():
            report = until_done.enter_context(ProgressReport())
            from hublora.workflows.train.train import train as workflow
        result = workflow(config, resume=resume, callback=report)
    _show_result(result, config)


def _show_result(result: TrainingResult, config: TrainingConfig) -> None:
    """Print where the adapter is, and the commands that use and share it."""
    pushed, folder = result.pushed, str(result.folder)
    lines = [
        f"The adapter is in {folder}",
        _use_line(folder, config),
        f"Share it: hublora push {shell_path(folder)} {shell_path(result.folder.name)}",
    ]
    if pushed is not None:
        lines = [f"Pushed and verified: {pushed.url}", _use_line(pushed.repo_id, config)]
    data = {
        "folder": folder,
        "final_loss": result.final_loss,
        "result_step": result.result_step,
        "change": result.change,
        "seconds": result.seconds,
        "repo_id": pushed.repo_id if pushed else None,
        "commit": pushed.commit if pushed else None,
        "url": pushed.url if pushed else None,
    }
    out.result("\n".join(lines), data, [pushed.repo_id if pushed else folder])


def _use_line(ref: str, config: TrainingConfig) -> str:
    """Return a command that draws with what was trained; its words stand in the prompt."""
    words = config.adapter.trigger_words
    prompt = shell_word(" ".join([*words, "…"])) if words else '"…"'
    folder, components = BaseRef.parse(config.base.model).folder, config.base.components
    base = (
        f" --base {shell_path(folder)}" if folder else ""
    )  # a result names no folder of a machine
    if folder and components:
        base += f" --components {shell_word(components)}"
    return f"Use it: hublora run {shell_path(ref)} {prompt}{base}"


def _recorded_config(
    made_from: str | None, given: dict[str, Any], resume: str | None
) -> TrainingConfig:
    """Return the settings that an adapter was trained with, or those of a checkpoint on the Hub,
    with the given ones in place of theirs."""
    from hublora.cli.progress import ProgressReport
    from hublora.data.source import check_there
    from hublora.workflows.train.destination import default_folder
    from hublora.workflows.train.hub_checkpoint import read_checkpoint_recipe
    from hublora.workflows.train.recipe import read_recipe, remake, report_changes

    if made_from is not None and is_repo(resume):
        raise ConfigError(
            "--from and --resume OWNER/NAME both bring settings.", "Leave one of them out."
        )
    recipe = read_checkpoint_recipe(str(resume)) if made_from is None else read_recipe(made_from)
    if "output_dir" not in given and "hub.model_id" not in given:
        given = {**given, "output_dir": default_folder(recipe.name, resume)}
    config = TrainingConfig.from_settings(remake(recipe, given))
    check_there(config.data)
    with ProgressReport() as report:  # which loads the libraries
        report_changes(recipe, given, report)
    return config


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
        from hublora.workflows.train.fit_memory import fit

        return fit(config, gib, resume=resume, callback=report)
