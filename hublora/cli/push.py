"""`hublora push`: pushes a finished run as one verified commit."""

from __future__ import annotations

from pathlib import Path

import click

from hublora.cli.early import check_base, check_push_name
from hublora.cli.output import out, output_flags, push_summary
from hublora.hub.repo_layout import check_contents

EXAMPLES = """
\b
Examples:
  hublora push runs/pokemon-lora pokemon-lora
  hublora push runs/pokemon-lora me/pokemon-lora
  hublora push runs/pokemon-lora me/pokemon-lora --private
"""


@click.command(epilog=EXAMPLES)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo_id", metavar="[OWNER/]NAME")
@click.option("--private", is_flag=True, help="Create the repo private.")
@click.option("--base", help="Hub id or folder of the base model, if the adapter does not name it.")
@output_flags
def push(folder: Path, repo_id: str, private: bool, base: str | None) -> None:
    """Push the adapter in FOLDER to OWNER/NAME, or your own NAME, and verify what arrived.

    Only adapter, card, images and settings are uploaded, never checkpoints or caches. Edits that
    were made by hand in the repo's card are preserved.
    """
    from hublora.cli.progress import ProgressReport

    check_contents(folder)
    check_push_name(repo_id)
    check_base(base)
    with ProgressReport() as report:
        from hublora.workflows.push import push as workflow

        pushed = workflow(folder, repo_id, private=private, base=base, callback=report)
    data = {"repo_id": pushed.repo_id, "commit": pushed.commit, "url": pushed.url}
    out.result("\n".join(push_summary(pushed)), data, [pushed.repo_id])
