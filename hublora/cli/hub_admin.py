"""`hublora hub user|token|ls|import|gc|check|backup`: looking after a Hub's data folder.

All of it works on the folder itself, with or without a server running on it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hublora.cards.format import format_count
from hublora.cli.output import out, output_flags
from hublora.errors import HubloraError

if TYPE_CHECKING:
    from hublora.localhub.store import Store

DEFAULT_DATA = "hub-data"
KINDS = click.Choice(["model", "dataset", "space"])


def examples(*lines: str) -> str:
    """Return the end of a help text."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def data_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data DIR`."""
    return click.option(
        "--data",
        "data_dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_DATA,
        show_default=True,
        envvar="HUBLORA_HUB_DATA",
        help="Folder that holds everything.",
    )(function)


def open_store(data_dir: Path) -> Store:
    """Open the data folder of an existing Hub."""
    from hublora.localhub.store import Store

    os.umask(0o077)  # whatever is stored is this user's alone
    folder = data_dir.expanduser()
    if not (folder / "hub.sqlite").exists():
        raise HubloraError(
            f"There is no Hub in {folder}.", f"Start one with `hublora hub --data {folder}`."
        )
    return Store(folder)


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows: a table for people, objects as JSON, the first column for scripts."""
    lines = [list(columns)]
    lines += [["" if row[c] is None else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    data = [{c: row[c] for c in columns} for row in rows]
    out.result("\n".join(table), data, [str(row[columns[0]]) for row in rows])


@click.command("ls", epilog=examples("hublora hub ls", "hublora hub ls --kind dataset -q"))
@click.option("--kind", type=KINDS, help="Only these.")
@data_option
@output_flags
def list_repos(kind: str | None, data_dir: Path) -> None:
    """List repos, private ones included."""
    repos = [repo for repo in open_store(data_dir).repos.all() if kind in (None, repo.kind)]
    show([asdict(repo) for repo in repos], ("name", "kind", "private", "gated", "modified_at"))


@click.command(
    "import", epilog=examples("hublora hub import ~/models/sd-turbo stabilityai/sd-turbo")
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo_id", metavar="OWNER/NAME")
@click.option("--repo-type", type=KINDS, default="model", show_default=True)
@click.option("--private", is_flag=True, help="Make the repo private.")
@click.option("--commit-message", default="Import folder", show_default=True)
@data_option
@output_flags
def import_snapshot(
    folder: Path,
    repo_id: str,
    repo_type: str,
    private: bool,
    commit_message: str,
    data_dir: Path,
) -> None:
    """Take a folder in as a repo.

    FOLDER, e.g. a model copied from a disk, becomes the newest commit of OWNER/NAME.
    """
    from hublora.localhub import import_folder
    from hublora.localhub.snapshots import find

    os.umask(0o077)  # whatever is stored is this user's alone
    target = data_dir.expanduser()
    people = _names(target)
    commit = import_folder(target, repo_id, folder, repo_type, commit_message, private=private)
    if find(folder):
        out.note(
            "This is a snapshot of the Hugging Face cache, and its commit has got a new id here; to"
            f" keep the id: hublora hub mirror {shlex.quote(str(folder))}"
        )
    for made in _names(target) - people:
        out.note(f"Made the user {made}. For a token: hublora hub token create {made}")
    out.result(f"{repo_id}@{commit}", {"repo_id": repo_id, "commit": commit}, [commit])


def _names(data_dir: Path) -> set[str]:
    from hublora.localhub.store import Store

    return {row["name"] for row in Store(data_dir).people.everyone()}


@click.command("gc", epilog=examples("hublora hub gc --data ~/hub"))
@data_option
@output_flags
def collect_garbage(data_dir: Path) -> None:
    """Free what no repo uses any more.

    The Hub may run meanwhile: what is being uploaded stays.
    """
    files, size = open_store(data_dir).collect_garbage()
    text = f"Freed {size / 1e6:.1f} MB in {format_count(files, 'file')}."
    out.result(text, {"files": files, "bytes": size}, [])


@click.command("check", epilog=examples("hublora hub check --data ~/hub"))
@data_option
@output_flags
def check_files(data_dir: Path) -> None:
    """Read every large file and compare it with its sha256.

    One that is damaged or missing is named, and mended by uploading it again. Exits with 1 if there
    is one.
    """
    store = open_store(data_dir)
    names = store.large.all()
    damaged = [oid for oid in names if not store.large.is_sound(oid)]
    rows = [
        {"oid": oid, "repo": store.repos.by_id(holder).path}
        for oid in damaged
        for holder in store.large.holders(oid)
    ]
    show(rows, ("oid", "repo"))
    count = format_count(len(names), "large file")
    if damaged:
        raise HubloraError(
            f"Damaged or missing: {len(damaged)} of {count}.",
            "Upload them again: hf upload OWNER/NAME FOLDER",
        )
    out.note(f"{count} checked, all sound.")


@click.command("backup", epilog=examples("hublora hub backup /mnt/backup/hub --data ~/hub"))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@data_option
@output_flags
def backup(target: Path, data_dir: Path) -> None:
    """Copy everything to TARGET, as a backup.

    The Hub may run meanwhile. The copy is the Hub as it was at one moment. A second backup to the
    same place copies only what is new, and removes what is gone.
    """
    from hublora.localhub.store.backup import back_up

    done = back_up(open_store(data_dir), target.expanduser())
    text = f"Copied {done.size / 1e6:.1f} MB in {format_count(done.files, 'file')} to {target}."
    facts = {"files": done.files, "bytes": done.size, "missing": done.missing}
    out.result(text, facts, [])
    for path in done.missing:
        out.note(f"Missing in the Hub itself, so not copied: {path}")


COMMANDS = (list_repos, import_snapshot, collect_garbage, check_files, backup)
