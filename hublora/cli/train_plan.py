"""`hublora train --dry-run`: the report as text."""

from __future__ import annotations

import typing

from hublora.cards.format import format_count, format_size
from hublora.cli.output import out
from hublora.quoting import one_line
from hublora.training.config.resolve import without_dependent_defaults
from hublora.training.config.training_config import TrainingConfig

if typing.TYPE_CHECKING:
    from hublora.workflows.train.dry_run import DryRunReport


def show_plan(config: TrainingConfig, resume: str | None) -> None:
    """Check everything, measure one step and print the report."""
    from dataclasses import asdict

    from hublora.cli.progress import ProgressReport

    out.note("Checking …")
    with ProgressReport() as report:
        from hublora.workflows.train.dry_run import dry_run as workflow

        found = workflow(config, resume=resume, callback=report)
    out.result("\n".join(plan_lines(found)), asdict(found), [str(found.steps)])


def plan_lines(plan: DryRunReport) -> list[str]:
    """Return the lines of a report: what the training would do and need."""
    defaults = {**TrainingConfig.from_settings({"base.model": "a/b"}).flat(), "base.model": None}
    available = f" of {format_size(plan.memory_available)}" if plan.memory_available else ""
    held_out = f", {plan.skipped} skipped" if plan.skipped else ""
    held_out += f", {plan.held_out} held out" if plan.held_out else ""
    if plan.class_images:
        held_out += f", {plan.class_images} class images to generate first"
    facts = {
        "Base": f"{plan.base} (licence: {plan.base_license or 'not stated'})",
        "Images": f"{plan.images} of {plan.dataset}{held_out} "
        f"(licence: {plan.dataset_license or 'not stated'})",
        "Captions": plan.captions_from or "one for all images",
        "Method": f"{plan.settings['method']}, learning rate {_rates(plan)}, {_resolution(plan)}",
        "Training": f"{plan.weights:,} weights, {format_count(plan.steps, 'step')} of "
        f"{format_count(plan.images_per_step, 'image')} on {plan.device}",
        "Time": f"{_duration(plan.encode_seconds)} to encode, then {_duration(plan.train_seconds)} "
        f"to train ({plan.step_seconds:.3g} s a step), and about "
        f"{_duration(plan.generate_seconds)} for the generated images",
        "Generated": f"{format_count(plan.gallery, 'image')} at the end"
        + (f", {plan.previews:,} previews" if plan.previews else ""),
        **({"Preserved": plan.preserved} if plan.preserved else {}),
        "Memory": f"{format_size(plan.memory)}{available}",
        "Disk": f"{format_size(plan.disk)} of the {format_size(plan.disk_free)} free",
        "Pushed to": plan.push_to or "nowhere",
        **({"Uploads": plan.checkpoints_at} if plan.checkpoints_at else {}),
    }
    lines = [f"{name:<10} {one_line(value)}" for name, value in facts.items()]
    most = max(plan.buckets.values(), default=1)
    if plan.buckets:
        lines += ["Shapes", *(_bar(*one, most) for one in plan.buckets.items())]
    chosen = without_dependent_defaults(plan.settings)
    changed = {key: value for key, value in chosen.items() if value != defaults[key]}
    return [*lines, "Settings", *(f"  {key}: {value}" for key, value in changed.items())]


def _rates(plan: DryRunReport) -> str:
    rates = [f"{plan.learning_rate:g}"] if plan.learning_rate is not None else []
    if plan.token_embedding_lr is not None:
        rates.append(f"{plan.token_embedding_lr:g} of the token embeddings")
    return " and ".join(rates)


def _resolution(plan: DryRunReport) -> str:
    size = f"{plan.size[1]}×{plan.size[0]} pixels"
    if isinstance(sides := plan.settings["data.resolution"], list):
        *smaller, largest = map(str, sides)
        return f"{', '.join(smaller)} and {largest} pixels, measured at {largest}"
    return f"about {size}" if plan.buckets else size


def _bar(shape: str, count: int, most: int) -> str:
    """Return a line of a table: a bucket and its number of images, also as a bar."""
    return f"  {shape:>9} {count:>7}  {'█' * max(1, round(30 * count / most))}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds) // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
