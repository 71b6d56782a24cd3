"""`hublora convert`: writes an adapter in another file layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hublora.cli.output import out, output_flags
from hublora.cli.progress import ProgressReport

if TYPE_CHECKING:
    from hublora.workflows.convert import Conversion

EXAMPLES = """
\b
Examples:
  hublora convert me/pokemon-lora --to kohya -o pokemon.safetensors
  hublora convert ./from-civitai.safetensors --to diffusers -o converted
  hublora convert ./loha.safetensors --to peft --rank 32 -o converted

LoRA and DoRA tensors are written bit for bit, LoHa and LoKr in kohya's layout too; for diffusers
and PEFT those two are approximated by a low-rank update, and the error is printed.
"""


@click.command(epilog=EXAMPLES)
@click.argument("ref", metavar="ADAPTER")
@click.option(
    "--to",
    type=click.Choice(["diffusers", "kohya", "peft"]),
    required=True,
    help="File layout; ComfyUI and AUTOMATIC1111 read kohya's.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help=".safetensors file or folder to write.",
)
@click.option("--base", help="Its base model, where tensor names alone do not identify the layers.")
@click.option("--revision", "base_revision", help="Branch, tag or commit of --base.")
@click.option("--rank", type=click.IntRange(min=1), help="Truncate layers to this rank.")
@output_flags
def convert(
    ref: str,
    to: Literal["diffusers", "kohya", "peft"],
    output: Path,
    base: str | None,
    base_revision: str | None,
    rank: int | None,
) -> None:
    """Write ADAPTER in another file layout, with its metadata."""
    from hublora.workflows.convert import convert as workflow

    with ProgressReport() as progress:
        done = workflow(
            ref,
            to,
            output,
            base=base,
            base_revision=base_revision,
            rank=rank,
            callback=progress,
        )
    files = [str(file) for file in done.files]
    data = {
        "files": files,
        "layout": done.layout,
        "methods": done.methods,
        "lossless": done.error == 0,
        "error": done.error,
    }
    out.result("\n".join([*files, _describe(done)]), data, files)


def _describe(done: Conversion) -> str:
    if done.error == 0:
        return "Lossless: the update of every layer is unchanged."
    return f"Not lossless: a layer differs by up to {done.error:.1%} of its update."
