"""Options that several commands have."""

from __future__ import annotations

import click


def pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Return what was given as NAME=VALUE, as a callback of an option that may be repeated."""
    split = [value.rpartition("=") for value in values]
    if any(not (name and value) for name, _, value in split):
        raise click.BadParameter(f"write it like {parameter.opts[0]} {parameter.metavar}")
    return {name: value for name, _, value in split}
