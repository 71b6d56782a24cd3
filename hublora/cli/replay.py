"""`hublora replay`: an image again, from its own metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

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
@click.option("--seed", type=click.IntRange(0), help="Another seed than the image's.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A .png file or a folder.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File of an adapter that was not on the Hub; may be repeated.",
)
@click.option("--base", help="The base, if it was a folder.")
@click.option("--device", help="A torch device; a GPU if there is one.")
@click.option("--image", type=_FILE, help="What it was drawn from, if that is not beside it.")
@click.option("--mask", type=_FILE, help="Likewise.")
@click.option("--control-image", type=_FILE, help="Likewise.")
@click.option("--ip-adapter-image", type=_FILE, help="Likewise.")
@click.option("--ip-adapter", help="File of the IP-Adapter, if it was not on the Hub.")
@output_flags
def replay(png: Path, **settings: Any) -> None:
    """Make IMAGE again from what it says about itself, and tell what is not as it was."""
    from hublora.cli.progress import ProgressReport

    with ProgressReport() as report:
        from hublora.workflows.replay import replay as workflow

        done = workflow(png, callback=report, **settings)
    told = ""
    if done.difference is not None:
        told = "  the same image" if done.difference == 0 else ""
        told = told or f"  differs by {done.difference:.2f} of 255 levels on average"
    data = {"file": str(done.path), "drift": done.drift, "difference": done.difference}
    out.result(f"{done.path}{told}", data, [str(done.path)])
