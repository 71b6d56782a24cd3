"""`hublora train --dry-run`: what a training would do, need and take, as text."""

from __future__ import annotations

import typing

from hublora.cli.output import out
from hublora.training.config import TrainingConfig

if typing.TYPE_CHECKING:
    from hublora.workflows.plan import Plan


def show_plan(config: TrainingConfig, resume: str | None) -> None:
    """Check everything, measure one step and print the plan."""
    from dataclasses import asdict

    from hublora.cli.progress import ProgressReport

    out.note("Checking …")
    with ProgressReport() as report:
        from hublora.workflows.plan import plan as workflow

        found = workflow(config, resume=resume, observer=report)
    out.result("\n".join(plan_lines(found)), asdict(found), [str(found.steps)])


def plan_lines(plan: Plan) -> list[str]:
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
        **({"Kept at": plan.kept_at} if plan.kept_at else {}),
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
