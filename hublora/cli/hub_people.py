"""`hublora hub user|token`: who there is, and what opens the Hub for them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import click

from hublora.cli.hub_admin import data_option, examples, open_store, show
from hublora.cli.options import WholeGroup
from hublora.cli.output import out, output_flags


class Duration(click.ParamType):
    """A time such as 90m, 12h or 30d, in seconds."""

    name = "duration"
    _UNITS: ClassVar[dict[str, int]] = {"m": 60, "h": 3600, "d": 86_400}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        number, unit = str(value)[:-1], self._UNITS.get(str(value)[-1:])
        if unit is None or not number.isascii() or not number.isdigit() or len(number) > 5:
            self.fail(f"{value!r} is no time such as 90m, 12h or 30d.", param, ctx)
        return float(int(number) * unit)


@click.group(cls=WholeGroup, epilog=examples("hublora hub user add ada", "hublora hub user ls"))
def user() -> None:
    """Add and list users and organisations."""


@user.command("add", epilog=examples("hublora hub user add ada --data ~/hub"))
@click.argument("name")
@click.option("--org", is_flag=True, help="It is an organisation.")
@data_option
def user_add(name: str, org: bool, data_dir: Path) -> None:
    """Add a user."""
    open_store(data_dir).people.add(name, "org" if org else "user")
    out.note(f"Added {name}. Next: hublora hub token create {name}")


@user.command("join", epilog=examples("hublora hub user join ada studio"))
@click.argument("name")
@click.argument("organisation")
@click.option(
    "--role", type=click.Choice(["admin", "write", "read"]), default="write", show_default=True
)
@data_option
def user_join(name: str, organisation: str, role: str, data_dir: Path) -> None:
    """Make a user a member of an organisation."""
    open_store(data_dir).people.set_member(organisation, name, role)
    out.note(f"{name} is in {organisation} ({role}).")


@user.command("leave", epilog=examples("hublora hub user leave ada studio"))
@click.argument("name")
@click.argument("organisation")
@data_option
def user_leave(name: str, organisation: str, data_dir: Path) -> None:
    """Take a user out of an organisation."""
    open_store(data_dir).people.remove_member(organisation, name)
    out.note(f"{name} is no longer in {organisation}.")


@user.command("members", epilog=examples("hublora hub user members studio"))
@click.argument("organisation")
@data_option
@output_flags
def user_members(organisation: str, data_dir: Path) -> None:
    """List the members of an organisation with their roles."""
    rows = [dict(row) for row in open_store(data_dir).people.members(organisation)]
    show(rows, ("name", "role"))


@user.command("rm", epilog=examples("hublora hub user rm ada"))
@click.argument("name")
@data_option
def user_remove(name: str, data_dir: Path) -> None:
    """Remove a user who has no repos, with all tokens."""
    open_store(data_dir).people.remove(name)
    out.note(f"Removed {name}.")


@user.command("ls", epilog=examples("hublora hub user ls --json"))
@data_option
@output_flags
def user_list(data_dir: Path) -> None:
    """List users and organisations."""
    rows = [dict(row) for row in open_store(data_dir).people.everyone()]
    show(rows, ("name", "kind", "created_at"))


@click.group(
    cls=WholeGroup, epilog=examples("hublora hub token create ada -q", "hublora hub token revoke 3")
)
def token() -> None:
    """Give out, list and revoke tokens."""


@token.command(
    "create",
    epilog=examples(
        "export HF_TOKEN=$(hublora hub token create ada -q)",
        "hublora hub token create ada --role read --label laptop",
        "hublora hub token create ada --repo ada/lora --role write --expires 30d",
    ),
)
@click.argument("name")
@click.option("--role", type=click.Choice(["read", "write"]), default="write", show_default=True)
@click.option("--label", default="token", show_default=True, help="What lists call it.")
@click.option("--repo", help="Only this repo, e.g. ada/lora or datasets/ada/images.")
@click.option("--expires", type=Duration(), help="From when on it opens nothing, e.g. 12h or 30d.")
@data_option
@output_flags
def token_create(
    name: str, role: str, label: str, repo: str | None, expires: float | None, data_dir: Path
) -> None:
    """Give out a token. It is shown this once."""
    store = open_store(data_dir)
    if repo is None:
        made = store.people.create_token(name, role, label, seconds=expires)
    else:
        only = store.repos.at(repo)
        made = store.people.create_token(name, "fineGrained", label, only.id, role, expires)
    out.result(made, {"user": name, "token": made}, [made])
    out.note("Keep it: it is not shown again.")


@token.command("revoke", epilog=examples("hublora hub token revoke 3"))
@click.argument("number")
@data_option
def token_revoke(number: str, data_dir: Path) -> None:
    """Make a token worthless: NUMBER is from `token ls`, or the token itself."""
    open_store(data_dir).people.revoke_token(number)
    out.note("Revoked.")


@token.command("ls", epilog=examples("hublora hub token ls"))
@data_option
@output_flags
def token_list(data_dir: Path) -> None:
    """List tokens: never the tokens themselves."""
    columns = ("id", "user", "label", "role", "created_at", "used_at", "expires_at", "revoked_at")
    show([asdict(each) for each in open_store(data_dir).people.tokens()], columns)
