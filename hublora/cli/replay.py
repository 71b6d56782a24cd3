"""`hublora replay`: an image again, from its own metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hublora.cli.early import check_base
from hublora.cli.output import out, output_flags

EXAMPLES = """
\b
Examples:
  hublora replay totoro-0.png
  hublora replay totoro-0.png --seed 7 -o another.png
  hublora replay mine.png --adapter ./ink.safetensors
  hublora replay castle-0.png --image ~/sketches/sketch.png
"""


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(epilog=EXAMPLES)
@click.argument(
    "png", metavar="IMAGE", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Seed; the recorded one by default, and always that of a sheet.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .png file or a folder; beside IMAGE by default.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File of an adapter that was not on the Hub; may be repeated.",
)
@click.option("--base", help="Folder or file of the base model, if it was one.")
@click.option("--components", help="Folder with what a single file lacks, if it was a folder.")
@click.option("--device", help="Torch device, e.g. cuda:1; a GPU by default if there is one.")
@click.option("--image", type=_FILE, help="Input image, if it is not in IMAGE's folder.")
@click.option("--mask", type=_FILE, help="Inpainting mask, likewise.")
@click.option("--control-image", type=_FILE, help="Conditioning image, likewise.")
@click.option("--ip-adapter-image", type=_FILE, help="Image prompt, likewise.")
@click.option(
    "--reference",
    multiple=True,
    type=_FILE,
    help="Reference image of an edit model, likewise; may be repeated.",
)
@click.option("--ip-adapter", help="File of the IP-Adapter, if it was not on the Hub.")
@output_flags
def replay(png: Path, **settings: Any) -> None:
    """Generate IMAGE again from its own metadata, and report what has changed since."""
    from hublora.cli.progress import ProgressReport
    from hublora.generation.recorded import read_recorded

    read_recorded(png)
    check_base(settings["base"])
    with ProgressReport(names_files=False) as report:
        from hublora.workflows.replay import replay as workflow

        done = workflow(png, callback=report, **settings)
    comparison = ""
    if done.difference is not None:
        comparison = "  the same image" if done.difference == 0 else ""
        comparison = comparison or f"  differs by {done.difference:.2f} of 255 levels on average"
    data = {"file": str(done.path), "drift": done.drift, "difference": done.difference}
    out.result(f"{done.path}{comparison}", data, [str(done.path)])
