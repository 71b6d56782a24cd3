"""Options that several commands have."""

from __future__ import annotations

import click


class WholeGroup(click.Group):
    """A group whose help lists each command with its whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(limit=200))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Return what was given as NAME=VALUE, as a callback of an option that may be repeated."""
    split = [value.rpartition("=") for value in values]
    if any(not (name and value) for name, _, value in split):
        raise click.BadParameter(f"write it like {parameter.opts[0]} {parameter.metavar}")
    return {name: value for name, _, value in split}
