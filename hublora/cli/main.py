"""The entry point: finds the command, runs it, explains what went wrong."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module

import click

from hublora._version import __version__
from hublora.filesystem import remove_abandoned
from hublora.flag_names import speaking_flags

# Command -> (module, what it does). The module is imported when the command is used, so that
# `hublora --help` and shell completion stay quick.
COMMANDS = {
    "demo": ("hublora.cli.demo", "Train, push and run an adapter on this machine, in minutes."),
    "caption": ("hublora.cli.caption", "Write captions for images that have none."),
    "train": ("hublora.cli.train", "Train an adapter on captioned images."),
    "runs": ("hublora.cli.runs", "List the trainings below a folder."),
    "run": ("hublora.cli.run", "Generate images with adapters from the Hub."),
    "serve": ("hublora.cli.serve", "Generate images for others, over HTTP."),
    "search": ("hublora.cli.search", "Find adapters on the Hub."),
    "compose": ("hublora.cli.compose", "Combine several adapters into one repo or file."),
    "replay": ("hublora.cli.replay", "Generate an image again from its own metadata."),
    "outdated": ("hublora.cli.outdated", "List newer commits than a composition pins."),
    "update": ("hublora.cli.outdated", "Pin a composition to the current commits."),
    "push": ("hublora.cli.push", "Push a finished run to the Hub and verify it."),
    "verify": ("hublora.cli.verify", "Check a repo against what it states, or reproduce it."),
    "inspect": ("hublora.cli.inspect", "Show the facts of adapters without their weights."),
    "convert": ("hublora.cli.convert", "Write an adapter in another file layout."),
    "cache": ("hublora.cli.cache", "List and remove cached latents and downloads."),
    "hub": ("hublora.cli.hub", "Run a Hub of your own."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(cmd_name, COMMANDS, 1)
            if near:
                ctx.fail(f"No such command {cmd_name!r}. Did you mean {near[0]!r}?")
            return None
        return getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: hublora demo",
)
@click.version_option(__version__, "-V", "--version", message="hublora %(version)s")
def hublora() -> None:
    """Train, share and run diffusion LoRA adapters by Hub repo id."""
    remove_abandoned()


def run() -> None:
    """Run the command line; a known failure is one sentence and a status."""
    with speaking_flags():
        _run()


def _run() -> None:
    from hublora.cli.errors import EXIT_INTERRUPTED, explain, wants_traceback
    from hublora.cli.output import out
    from hublora.cli.suggestions import with_suggestion

    try:
        status = hublora.main(standalone_mode=False)
    except click.exceptions.Abort:
        out.stopped("Stopped.")
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        with_suggestion(error).show()
        sys.exit(error.exit_code)
    except BaseException as error:
        explained = explain(error)
        if explained is None or wants_traceback():
            raise
        with suppress(OSError):  # nobody reads it any more
            tell = out.stopped if explained[1] == EXIT_INTERRUPTED else out.error
            tell(explained[0])
        sys.exit(explained[1])
    sys.exit(status if isinstance(status, int) else 0)
