"""`hublora demo`: the guided tour."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hublora.cli.output import out, output_flags

EXAMPLES = """
\b
Examples:
  hublora demo
  hublora demo --folder /tmp/hublora-demo
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("hublora-demo"),
    show_default=True,
    help="Folder for everything that the demo writes.",
)
@output_flags
def demo(folder: Path) -> None:
    """Train, push and run an adapter on this machine: no account, no GPU, a few minutes.

    Starts an embedded Hub with a tiny base and a small captioned dataset, then trains, pushes,
    verifies, runs and composes, showing each command as you would type it.
    """
    from hublora.demo.tour import take_tour

    result = take_tour(folder, lambda text: click.echo(text, err=True))
    where = Path(os.path.relpath(result.folder))
    lines = [f"Done in {result.seconds:.0f} s. Look at the images:"]
    lines += [f"  {what:<22} {os.path.relpath(path)}" for what, path in result.images.items()]
    lines += [
        "",
        "Type the commands yourself, with the Hub started again:",
        f"  hublora hub --data {where}/hub",
        "and in another terminal, after the export lines that it prints:",
        '  hublora run demo/sketchbook-lora "a drawing of a green cat"',
    ]
    data = {
        "folder": str(result.folder),
        "images": {what: str(path) for what, path in result.images.items()},
        "seconds": result.seconds,
    }
    out.result("\n".join(lines), data, [str(path) for path in result.images.values()])
