"""Writes docs/cli.md from the help of every command; `--check` only tells whether it is in step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from generated_page import write_or_check

PAGE = Path(__file__).parent / "cli.md"
WIDTH = 100
HEAD = """# Command line

<!-- Made by `make docs` from the commands' own help: change the help, not this page. -->

Data goes to stdout, everything else to stderr. `--json` prints one JSON value, `-q` only ids or
paths. A known failure is one sentence and exit status 1 (`HUBLORA_DEBUG=1` adds the traceback);
wrong usage (an unknown flag, a missing argument) exits 2; an interrupted training saves a
checkpoint and exits 130. `hf-lora` is the same program, so that `hf lora …` works as an extension
of the `hf` tool.
"""


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Yield name and help of a command and of all below it."""
    settings = {**command.context_settings, "max_content_width": WIDTH}
    context = click.Context(command, parent, name, terminal_width=WIDTH, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None, below
            yield from commands(found, below, context)


def page() -> str:
    """Return the whole page."""
    from hublora.cli.main import hublora

    sections = [
        f"## {name}\n\n```text\n{text.rstrip()}\n```\n"
        for name, text in commands(hublora, "hublora")
    ]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), "--help"))
