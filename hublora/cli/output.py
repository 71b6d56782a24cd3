"""The one place that prints: data to stdout, everything else to stderr.

What comes from a card or a file name cannot command the terminal (`quoting.visible`).

mode     stdout                          stderr
human    text for people                 progress bars, notes
json     one compact JSON value          notes
quiet    ids or paths, one a line        errors
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from hublora.quoting import visible, visible_json

if TYPE_CHECKING:
    from hublora.hub.push import PushResult

Mode = Literal["human", "json", "quiet"]
F = TypeVar("F", bound=Callable[..., Any])


class Output:
    """Prints a command's result and notes; the mode is set once per command."""

    def __init__(self) -> None:
        self.mode: Mode = "human"

    def use(self, as_json: bool, quiet: bool) -> None:
        """Choose the mode from a command's flags."""
        self.mode = "json" if as_json else "quiet" if quiet else "human"

    @property
    def shows_progress(self) -> bool:
        """Whether stderr is a terminal and progress bars are shown."""
        return self.mode == "human" and sys.stderr.isatty()

    def result(self, text: str, data: Any, ids: Sequence[str]) -> None:
        """Print a command's result: `text` for people, `data` as JSON, `ids` one a line."""
        if self.mode == "human":
            click.echo(visible(text))
        elif self.mode == "json":
            text = json.dumps(data, default=str, ensure_ascii=False, separators=(",", ":"))
            click.echo(visible_json(text))
        else:
            for one in ids:
                click.echo(visible(one))

    def note(self, text: str) -> None:
        """Print a line about the progress of the command."""
        if self.mode != "quiet":
            click.secho(visible(text), err=True, dim=self.shows_progress)

    def warning(self, text: str) -> None:
        """Print a warning; it appears in every mode."""
        click.secho(
            visible(f"Warning: {text}"), err=True, fg="yellow" if sys.stderr.isatty() else None
        )

    def stopped(self, text: str) -> None:
        """Print that the command ended because somebody asked it to; it appears in every mode."""
        click.secho(visible(text), err=True)

    def error(self, text: str) -> None:
        """Print why a command failed."""
        click.secho(visible(f"Error: {text}"), err=True, fg="red" if sys.stderr.isatty() else None)


out = Output()


def push_summary(pushed: PushResult) -> list[str]:
    """Return the lines that report a verified push."""
    return [
        f"Pushed and verified: {pushed.url}",
        f'Use it: hublora run {pushed.repo_id} "…"',
    ]


def output_flags(command: F) -> F:
    """Give a command `--json` and `-q/--quiet`."""

    def choose(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
        if value:
            out.mode = "json" if parameter.name == "as_json" else "quiet"
        return value

    json_flag = click.option(
        "--json",
        "as_json",
        is_flag=True,
        expose_value=False,
        callback=choose,
        help="Print the result as JSON.",
    )
    quiet_flag = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=choose,
        help="Print ids or paths only.",
    )
    return json_flag(quiet_flag(command))
