"""`hublora hub`: run the embedded Hub."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from hublora.cli.hub_admin import COMMANDS, data_option
from hublora.cli.hub_mirror import mirror
from hublora.cli.hub_people import token, user
from hublora.cli.hub_repo import repo
from hublora.cli.options import WholeGroup
from hublora.cli.output import out
from hublora.filesystem import write_atomically

EXAMPLES = """
\b
Examples:
  hublora hub
  hublora hub --data ~/hub --port 0 --env hub.env
  hublora hub user add ada --data ~/hub
  hublora hub mirror stabilityai/sd-turbo --include '*.safetensors' --data ~/hub
"""


@click.group(cls=WholeGroup, invoke_without_command=True, epilog=EXAMPLES)
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option("--user", default="me", show_default=True, help="Name of the first user.")
@click.option(
    "--env",
    "env_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the export lines to this file once the Hub answers, and not to stdout.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the first user's token to this file.",
)
@click.option("--seed-demo", is_flag=True, help="Take in hublora's small base model and images.")
@click.option("--read-only", is_flag=True, help="Refuse every change.")
@click.option("--allow-remote", is_flag=True, help="Let other machines in (see --host).")
@click.option("--public-url", help="Address that people use, when a proxy stands in front.")
@click.option("--tls-cert", type=click.Path(exists=True), help="Certificate, for HTTPS.")
@click.option("--tls-key", type=click.Path(exists=True), help="Key of the certificate.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request to stderr.")
@click.pass_context
def hub(ctx: click.Context, **options: Any) -> None:
    """Run a Hub of your own.

    The Hugging Face libraries work against it as soon as the lines that it prints are in the
    environment. It listens on this machine only, and wants a token for every change.
    """
    ctx.obj = options
    if ctx.invoked_subcommand is None:
        run_server(options)


def run_server(options: dict[str, Any]) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from hublora.localhub.app import Settings
    from hublora.localhub.serve import serve, set_up_logs

    if bool(options["tls_cert"]) != bool(options["tls_key"]):
        raise click.UsageError("--tls-cert and --tls-key belong together.")
    set_up_logs(options["verbose"])
    data_dir: Path = options["data_dir"].expanduser()
    settings = Settings(
        host=options["host"],
        port=options["port"],
        user=options["user"],
        read_only=options["read_only"],
        public_url=options["public_url"].rstrip("/") if options["public_url"] else None,
    )
    serve(
        data_dir,
        settings,
        ready=lambda url, token: announce(url, token, options),
        allow_remote=options["allow_remote"],
        tls=(options["tls_cert"], options["tls_key"]) if options["tls_cert"] else None,
    )


_FIRST_COMMANDS = """\
Then, for example (hf auth whoami tells who you are here):
hublora train --base hublora/tiny-sd --dataset hublora/tiny-sketchbook --max-train-steps 200 \\
  --learning-rate 1e-3 --train-batch-size 8 --validation-prompt "a drawing of a green cat" \\
  --push-to-hub --hub-model-id first-lora
hublora run hublora/tiny-stripes-lora "a drawing of a red fish" -o fish.png"""


def announce(url: str, token: str | None, options: dict[str, Any]) -> None:
    """Seed what is asked for, now that the first user is there, and say where the Hub is."""
    if options["seed_demo"]:
        from hublora.demo.seed import seed

        click.echo("Taking in the demo's base model and images …", err=True)
        seed(options["data_dir"].expanduser())
    facts = {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    lines = [f"export {name}={value}" for name, value in facts.items() if value]
    if options["token_file"] and token:
        write_atomically(options["token_file"].absolute(), token.encode() + b"\n", mode=0o600)
    if options["env_file"]:
        source = f"source {shlex.quote(str(options['env_file']))}"
        out.note(f"The Hub answers at {url}; stop it with Ctrl-C. In another terminal: {source}")
    else:
        out.note(f"The Hub answers at {url}; stop it with Ctrl-C. In another terminal:")
        click.echo("\n".join(lines))
    if options["seed_demo"]:
        out.note(_FIRST_COMMANDS)
    # Last, so that whoever waits for the file finds a Hub that answers.
    if options["env_file"]:
        content = "\n".join(lines).encode() + b"\n"
        write_atomically(options["env_file"].absolute(), content, mode=0o600)


for _command in (user, token, *COMMANDS, mirror, repo):
    hub.add_command(_command)
