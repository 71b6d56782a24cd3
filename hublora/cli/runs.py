"""`hublora runs`: lists the trainings below a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hublora.cli.output import out, output_flags

if TYPE_CHECKING:
    from hublora.workflows.list_runs import FoundRun

EXAMPLES = """
\b
Examples:
  hublora runs
  hublora runs ~/trainings --sheet overview.png
  hublora runs --json | jq '.[] | select(.state == "stopped") | .folder'
"""
_HEADS = ("RUN", "STATE", "STEP", "LOSS", "HELD OUT", "SIZE", "ON DISK", "IMAGE")


@click.command(epilog=EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Image grid of all runs to write (PNG).",
)
@output_flags
def runs(folder: Path | None, sheet: Path | None) -> None:
    """List the trainings in or below FOLDER (./runs by default).

    LOSS is the mean over the last tenth of the steps, HELD OUT the lowest loss on held-out images;
    STEP "150 of 500" is a result with the weights of step 150.
    STATE is finished, running, stopped (with the command that resumes it) or broken.
    """
    from hublora.workflows.list_runs import list_runs, write_runs_sheet

    if folder is None:
        folder = Path("runs")
        found = list_runs(folder) if folder.is_dir() else []  # nobody has trained here yet
    else:
        found = list_runs(folder)
    if sheet is not None:
        write_runs_sheet(found, sheet)
        out.note(f"Wrote the sheet: {sheet}")
    text = "\n".join(_table(found)) if found else f"There are no trainings in {folder}."
    out.result(text, [asdict(run) for run in found], [str(run.folder) for run in found])


def _table(runs: list[FoundRun]) -> list[str]:
    rows = [_HEADS, *(_row(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS) - 1)]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
        run = runs[number - 1] if number else None
        if run is not None and run.problem:
            lines.append(f"  {run.problem}")
        if run is not None and run.resume:
            lines.append(f"  Resume: {run.resume}")
    return lines


def _row(run: FoundRun) -> tuple[str, ...]:
    from hublora.cards.format import format_size

    return (
        str(run.folder),
        run.state,
        _step(run),
        _number(run.loss),
        _number(run.held_out),
        format_size(run.size) if run.size is not None else "-",
        format_size(run.disk),
        str(run.image.relative_to(run.folder)) if run.image else "-",
    )


def _step(run: FoundRun) -> str:
    if run.result_step not in (None, run.step):
        return f"{run.result_step} of {run.step}"
    return str(run.step) if run.steps in (None, run.step) else f"{run.step}/{run.steps}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
