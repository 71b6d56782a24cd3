"""`hublora outdated` and `hublora update`: the commits that a composition pins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hublora.cli.early import check_adapters
from hublora.cli.output import out, output_flags, push_summary

if TYPE_CHECKING:
    from hublora.workflows.update import VersionChange

EXAMPLES = """
\b
Examples:
  hublora outdated me/mix
  hublora outdated me/mix --prompt "a castle" --sheet changes.png
"""
UPDATE_EXAMPLES = """
\b
Examples:
  hublora update me/mix
  hublora update me/mix --base
"""


@click.command(epilog=EXAMPLES)
@click.argument("ref", metavar="COMPOSITION")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    default=Path("outdated.png"),
    show_default=True,
    help="Image grid to write: the same prompts and seeds, pinned and current.",
)
@click.option("--no-sheet", is_flag=True, help="Generate nothing.")
@click.option("--prompt", "prompts", multiple=True, help="Prompt of the grid; may be repeated.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the grid."
)
@click.option("--steps", "num_inference_steps", type=click.IntRange(1), help="Denoising steps.")
@click.option("--device", help="Torch device, e.g. cuda:1; a GPU by default if there is one.")
@output_flags
def outdated(ref: str, sheet: Path, no_sheet: bool, **settings: Any) -> None:
    """List the adapters of COMPOSITION, and its base, that have newer commits than it pins.

    If an adapter file changed, an image grid compares both versions at the same prompts and seeds.
    """
    from hublora.cli.progress import ProgressReport

    check_adapters([ref])
    with ProgressReport() as report:
        from hublora.workflows.update import outdated as workflow

        found = workflow(ref, sheet=None if no_sheet else sheet, callback=report, **settings)
    text = "\n".join([*map(_line, found.parts), f"{_line(found.base)}  (base)"])
    data = {
        "parts": [asdict(part) | {"moved": part.moved} for part in found.parts],
        "base": asdict(found.base) | {"moved": found.base.moved},
        "sheet": str(found.sheet) if found.sheet else None,
    }
    moved = [part.repo for part in (*found.parts, found.base) if part.moved]
    out.result(text, data, moved)


@click.command(epilog=UPDATE_EXAMPLES)
@click.argument("ref", metavar="COMPOSITION")
@click.option("--base", is_flag=True, help="Pin the current commit of its base too.")
@click.option(
    "--prompt", "prompts", multiple=True, help="Prompt of the new gallery; may be repeated."
)
@click.option("--steps", "num_inference_steps", type=click.IntRange(1), help="Denoising steps.")
@click.option("--device", help="Torch device, e.g. cuda:1; a GPU by default if there is one.")
@output_flags
def update(ref: str, **settings: Any) -> None:
    """Pin COMPOSITION to the current commits, generate its gallery again and push it."""
    from hublora.cli.progress import ProgressReport

    check_adapters([ref])
    with ProgressReport() as report:
        from hublora.workflows.update import update as workflow

        done = workflow(ref, callback=report, **settings)
    if done is None:
        out.result(f"{ref} is up to date.", {"updated": False}, [])
        return
    where = f"{done.pushed.repo_id}@{done.pushed.commit}" if done.pushed else str(done.folder)
    text = "\n".join(push_summary(done.pushed)) if done.pushed else where
    out.result(text, {"updated": True, "where": where}, [where])


def _line(part: VersionChange) -> str:
    if not part.moved:
        return f"{part.repo}  {part.pinned[:8]}  as pinned"
    file = "another file" if part.changed else "the same file"
    return f"{part.repo}  {part.pinned[:8]} → {part.now[:8]}  {file}"
