"""`hublora hub repo`: repos of a data folder, for whoever runs the Hub and for scripts.

People create theirs with `hf repos create`; this needs no token, only the folder.
"""

from __future__ import annotations

from pathlib import Path

import click

from hublora.cli.hub_admin import KINDS, data_option, examples, open_store
from hublora.cli.options import WholeGroup
from hublora.cli.output import out, output_flags

repo_type_option = click.option("--repo-type", type=KINDS, default="model", show_default=True)


@click.group(
    cls=WholeGroup,
    epilog=examples("hublora hub repo create ada/lora", "hublora hub repo delete ada/old"),
)
def repo() -> None:
    """Create, move, change and delete repos."""


@repo.command(
    "create",
    epilog=examples(
        "hublora hub repo create ada/lora --private --data ~/hub",
        "hublora hub repo create studio/images --repo-type dataset",
    ),
)
@click.argument("repo_id", metavar="OWNER/NAME")
@repo_type_option
@click.option("--private", is_flag=True, help="Show it to its owner alone.")
@click.option("--space-sdk", type=click.Choice(["gradio", "streamlit", "docker", "static"]))
@data_option
@output_flags
def create(
    repo_id: str, repo_type: str, private: bool, space_sdk: str | None, data_dir: Path
) -> None:
    """Make an empty repo. Its owner must be a user or an organisation."""
    owner, _, name = repo_id.partition("/")
    store = open_store(data_dir)
    proper = store.people.find(owner)["name"]
    made = store.create_repo(repo_type, proper, name, private=private, sdk=space_sdk)
    out.result(f"Created {made.path}.", {"repo_id": made.name, "repo_type": made.kind}, [made.name])


@repo.command("delete", epilog=examples("hublora hub repo delete ada/old --yes"))
@click.argument("repo_id", metavar="OWNER/NAME")
@repo_type_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@data_option
def delete(repo_id: str, repo_type: str, yes: bool, data_dir: Path) -> None:
    """Delete a repo with its history; `hublora hub gc` then frees its large files."""
    store = open_store(data_dir)
    found = store.repos.find(repo_type, repo_id)
    if not yes:
        click.confirm(f"Delete {found.path} with all its history?", abort=True, err=True)
    store.delete_repo(found)
    out.note(f"Deleted {found.path}.")


@repo.command("move", epilog=examples("hublora hub repo move ada/lora studio/lora"))
@click.argument("repo_id", metavar="OWNER/NAME")
@click.argument("target", metavar="NEW_OWNER/NEW_NAME")
@repo_type_option
@data_option
def move(repo_id: str, target: str, repo_type: str, data_dir: Path) -> None:
    """Rename a repo or give it to another owner; the old name goes on leading to it."""
    owner, _, name = target.partition("/")
    store = open_store(data_dir)
    found = store.repos.find(repo_type, repo_id)
    store.repos.move(found, store.people.find(owner)["name"], name)
    out.note(f"{found.path} is now {store.repos.by_id(found.id).path}.")


@repo.command(
    "settings", epilog=examples("hublora hub repo settings ada/lora --private --gated manual")
)
@click.argument("repo_id", metavar="OWNER/NAME")
@repo_type_option
@click.option("--private/--public", default=None, help="Who may know of it.")
@click.option(
    "--gated",
    type=click.Choice(["auto", "manual", "false"]),
    help="Give files out on request, at once or after the owner's consent.",
)
@data_option
def settings(
    repo_id: str, repo_type: str, private: bool | None, gated: str | None, data_dir: Path
) -> None:
    """Make a repo private, public or gated."""
    store = open_store(data_dir)
    found = store.repos.find(repo_type, repo_id)
    store.repos.update(found, private, "" if gated == "false" else gated)
    now = store.repos.by_id(found.id)
    shown = "private" if now.private else "public"
    out.note(f"{now.path} is {shown}{f', gated ({now.gated})' if now.gated else ''}.")


@repo.command("revert", epilog=examples("hublora hub repo revert ada/lora 1f3c9a2"))
@click.argument("repo_id", metavar="OWNER/NAME")
@click.argument("commit")
@repo_type_option
@data_option
@output_flags
def revert(repo_id: str, commit: str, repo_type: str, data_dir: Path) -> None:
    """Undo COMMIT by a new commit on main; nothing is lost from the history."""
    store = open_store(data_dir)
    found = store.repos.find(repo_type, repo_id)
    made = store.branches.revert(found, commit, found.owner)
    out.result(f"{found.name}@{made}", {"repo_id": found.name, "commit": made}, [made])
