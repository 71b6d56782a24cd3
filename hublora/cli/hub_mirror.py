"""`hublora hub mirror`: repos of another Hub under the commit ids that they have there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hublora.cli.hub_admin import KINDS, data_option, examples
from hublora.cli.output import out, output_flags

if TYPE_CHECKING:
    from hublora.localhub.mirror import Mirrored, Target
    from hublora.localhub.store import Store

SHOWN = 5


@click.command(
    "mirror",
    epilog=examples(
        "hublora hub mirror stable-diffusion-v1-5/stable-diffusion-v1-5 --include '*.safetensors'",
        "hublora hub mirror ~/.cache/huggingface/hub/models--stabilityai--sd-turbo --data ~/hub",
        "hublora hub mirror ~/clones/sd-turbo stabilityai/sd-turbo --data ~/hub",
        "hublora hub mirror /media/disk/hub stabilityai/sd-turbo --data ~/hub",
        "hublora hub mirror studio/cat --upstream https://hub.studio.example --data ~/hub",
    ),
)
@click.argument("source", metavar="OWNER/NAME|FOLDER")
@click.argument("repo_id", metavar="[OWNER/NAME]", required=False)
@click.option("--repo-type", type=KINDS, default="model", show_default=True)
@click.option(
    "--revision",
    "revisions",
    multiple=True,
    default=("main",),
    show_default=True,
    help="Take the large files of this branch, tag or commit; may be given more than once.",
)
@click.option("--include", multiple=True, help="Only large files that match, e.g. '*.safetensors'.")
@click.option("--exclude", multiple=True, help="No large files that match.")
@click.option(
    "--upstream",
    default="https://huggingface.co",
    show_default=True,
    help="The Hub that OWNER/NAME is on; HF_ENDPOINT, which may name this one, is not used.",
)
@click.option(
    "--token",
    envvar="HUBLORA_UPSTREAM_TOKEN",
    help="Token for private and gated repos there; HF_TOKEN is not sent.",
)
@click.option("--private", is_flag=True, help="Show it to its owner alone.")
@data_option
@output_flags
def mirror(source: str, repo_id: str | None, data_dir: Path, **options: Any) -> None:
    """Take in a repo of another Hub with its commit ids, so that pins stay valid.

    From OWNER/NAME on --upstream, or from FOLDER that is a git clone of it or another Hub's data
    folder, everything is kept: history, branches, tags. From a snapshot in the Hugging Face cache
    only the files are kept, under the id of their commit. Run it again to bring what is new.
    """
    from hublora.localhub.mirror import Target

    os.umask(0o077)  # whatever is stored is this user's alone
    store, folder = _open_or_make(data_dir.expanduser()), Path(source).expanduser()
    facts = {"private": options["private"], "revisions": options["revisions"]}
    facts |= {"include": options["include"], "exclude": options["exclude"]}
    target = Target(repo_id or source, options["repo_type"], **facts)
    if folder.is_dir():
        done = _from_folder(store, folder, repo_id, target)
    else:
        done = _from_hub(store, source, target, options["upstream"].rstrip("/"), options["token"])
    _tell(done)


def _open_or_make(data_dir: Path) -> Store:
    """Open a data folder, which may be a new one: a disk that carries models to another machine."""
    from hublora.localhub.store import Store

    if not (data_dir / "hub.sqlite").exists():
        out.note(f"A new Hub begins in {data_dir}.")
    return Store(data_dir)


def _from_hub(
    store: Store, source: str, target: Target, endpoint: str, token: str | None
) -> Mirrored:
    from hublora.localhub.large_sources import from_hub
    from hublora.localhub.mirror import mirror_git
    from hublora.localhub.store.disk import workplace
    from hublora.localhub.store.names import check_repo_id

    check_repo_id(source)
    prefix = "" if target.kind == "model" else f"{target.kind}s/"
    with workplace(store.folder / "uploads") as place:
        files = from_hub(endpoint, source, target.kind, token, place / "files")
        address = f"{endpoint}/{prefix}{source}"
        return mirror_git(store, target, address, files, token=token, note=out.note)


def _from_folder(store: Store, folder: Path, repo_id: str | None, target: Target) -> Mirrored:
    from dataclasses import replace

    from hublora.localhub import snapshots
    from hublora.localhub.large_sources import from_clone
    from hublora.localhub.mirror import mirror_data_folder, mirror_git, mirror_snapshot

    snapshot = snapshots.find(folder)
    if snapshot is not None:
        named = replace(target, repo_id=repo_id or snapshot.repo_id, kind=snapshot.kind)
        return mirror_snapshot(store, named, snapshot)
    is_hub = (folder / "hub.sqlite").exists()
    if not (is_hub or (folder / ".git").exists() or (folder / "objects").is_dir()):
        raise click.UsageError(
            f"{folder} is no snapshot of the Hugging Face cache (…/snapshots/COMMIT), no git clone"
            " and no data folder of a Hub. Any other folder is taken in by:"
            " hublora hub import FOLDER OWNER/NAME"
        )
    if repo_id is None:
        raise click.UsageError(f"Say which repo of {folder}: hublora hub mirror FOLDER OWNER/NAME")
    if is_hub:
        return mirror_data_folder(store, _open_or_make(folder), target, out.note)
    return mirror_git(store, target, str(folder.absolute()), from_clone(folder), note=out.note)


def _tell(done: Mirrored) -> None:
    if done.made_owner:
        out.note(
            f"Made the organisation {done.made_owner}, of which nobody is a member yet:"
            f" hublora hub user join NAME {done.made_owner}"
        )
    if done.private and not done.made_repo:
        out.note(
            f"{done.repo_id} was here and is private, as a mirror is until it is whole; to show it:"
            f" hublora hub repo settings {done.repo_id} --public"
        )
    if not done.history:
        out.note(
            "Kept are the files alone, under the id of their commit; the commit's author, date and"
            " history are not in a snapshot."
        )
    for path in done.left_out[:SHOWN]:
        out.note(f"Left out: {path}")
    if len(done.left_out) > SHOWN:
        out.note(f"… and {len(done.left_out) - SHOWN} other large files.")
    facts = {
        "repo_id": done.repo_id,
        "commit": done.commit,
        "history": done.history,
        "files": done.files,
        "bytes": done.size,
        "left_out": done.left_out,
    }
    out.result(f"{done.repo_id}@{done.commit}", facts, [done.commit])
