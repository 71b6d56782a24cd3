"""`hublora caption`: writes captions with a captioning model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from hublora.cards.format import format_count
from hublora.cli.early import check_images, check_push_name
from hublora.cli.output import out, output_flags

EXAMPLES = """
\b
Examples:
  hublora caption ./photos --prefix "a photo of sks dog, "
  hublora caption photos.zip -o ./photos
  hublora caption me/images --push-to-hub me/captioned-images
"""
_SHOWN = 3  # captions that are printed


@click.command(epilog=EXAMPLES)
@click.argument("source", metavar="FOLDER|ZIP|DATASET")
@click.option("--model", help="Captioning model: Hub id or folder (default: BLIP base).")
@click.option("--revision", help="Branch, tag or commit of --model.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the images of a .zip or dataset.",
)  # fmt: skip
@click.option("--prefix", default="", help='Prefix of each caption, e.g. "sks dog, ".')
@click.option("--overwrite", is_flag=True, help="Replace existing captions.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Images per forward pass.",
)
@click.option("--device", help="Torch device, e.g. cuda:1; a GPU by default if there is one.")
@click.option("--push-to-hub", "push_to", metavar="OWNER/NAME", help="Push as a dataset repo.")
@click.option("--private", is_flag=True, help="Create that repo private.")
@output_flags
def caption(source: str, **settings: Any) -> None:
    """Write a caption for every image: a .txt beside it, as `hublora train --folder` reads them.

    Existing .txt files are not changed, so an interrupted run continues where it stopped and
    captions that were edited by hand are preserved.
    """
    from hublora.cli.progress import ProgressReport

    check_push_name(settings["push_to"])
    check_images(source)
    with ProgressReport() as report:
        from hublora.workflows.caption import caption as workflow

        done = workflow(source, callback=report, **settings)
    lines = [
        f"{format_count(done.written, 'caption')} written, {done.kept} already present, "
        f"{format_count(done.skipped, 'image')} skipped: {done.folder}"
    ]
    shown = list(done.captions.items())[:_SHOWN]
    lines += [f"  {name}: {text}" for name, text in shown]
    if len(done.captions) > len(shown):
        lines.append(f"  … and {len(done.captions) - len(shown):,} more")
    source = f"--folder {shlex.quote(str(done.folder))}"
    if done.pushed is not None:
        lines.append(f"Pushed and verified: {done.pushed.url}")
        source = f"--dataset {done.pushed.repo_id}"
    lines.append(f"Read and correct them, then train: hublora train --base … {source}")
    data = {
        "folder": str(done.folder),
        "written": done.written,
        "kept": done.kept,
        "skipped": done.skipped,
        "captions": dict(done.captions),
        "repo_id": done.pushed.repo_id if done.pushed else None,
        "commit": done.pushed.commit if done.pushed else None,
    }
    out.result("\n".join(lines), data, [str(done.folder)])
