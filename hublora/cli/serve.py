"""`hublora serve`: one warm base model, any adapter of the Hub, over HTTP."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from hublora.cli.output import out
from hublora.errors import ConfigError
from hublora.filesystem import write_atomically

KEY = "HUBLORA_SERVE_KEY"
EXAMPLES = """
\b
Examples:
  hublora serve --base hublora/tiny-sd
  hublora serve --base Tongyi-MAI/Z-Image --port 0 --env serve.env
"""


@click.command(epilog=EXAMPLES)
@click.option("--base", required=True, help="Hub id or folder of the base model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--env",
    "env_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write HUBLORA_SERVE_URL and a key to this file once images can be generated.",
)
@click.option("--device", help="Torch device, e.g. cuda:1; a GPU by default if there is one.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Type of the weights; the base's half precision on a GPU by default.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8", "fp8", "nf4"]),
    help="Hold the linear layers of denoiser and text encoders in 8 or 4 bits.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Requests whose denoising steps run together, at most.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Requests that wait for them, at most; further ones are refused (429).",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=300.0,
    show_default=True,
    help="Seconds that a request may take, waiting included.",
)
@click.option("--allow-urls", is_flag=True, help="Take adapters from any https URL too.")
@click.option(
    "--commercial",
    is_flag=True,
    help="Refuse adapters and bases whose licence forbids commercial use.",
)
def serve(base: str, env_file: Path | None, **options: Any) -> None:
    """Generate images for others: one base model in memory, any adapter of the Hub by request.

    Requests with different adapters share the denoising batch. It speaks the image APIs of OpenAI
    (/v1), of Hugging Face's InferenceClient (/models/REF) and of AUTOMATIC1111 (/sdapi/v1), on this
    machine only unless --host says otherwise; then HUBLORA_SERVE_KEY must hold the key that clients
    send.
    """
    _check_installed()
    from hublora.serve.server import Address, serve
    from hublora.serve.service import Service
    from hublora.serve.settings import EngineSettings, ServerSettings

    key = os.environ.get(KEY) or (_new_key() if env_file else None)
    engine = EngineSettings(
        device=options["device"],
        dtype=options["dtype"],
        quantize=options["quantize"],
        most_requests=options["max_batch"],
        most_waiting=options["max_waiting"],
        timeout=options["timeout"],
        commercial=options["commercial"],
    )
    service = Service(base, engine, ServerSettings(key=key, allow_urls=options["allow_urls"]))
    address = Address(options["host"], options["port"])
    serve(service, address, lambda url: _announce(service, url, key, env_file))


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("fastapi") is None:
        raise ConfigError(
            "Serving needs the package fastapi.", "Install it: pip install 'hublora[serve]'"
        )


def _new_key() -> str:
    import secrets

    return f"hlr_{secrets.token_urlsafe(32)}"


def _announce(service: Any, url: str, key: str | None, env_file: Path | None) -> None:
    """Say where the server is, and once the base is loaded that it generates."""
    import threading

    out.note(f"{url} answers; {service.base} is being loaded.")

    def tell() -> None:
        service.loaded.wait()
        try:
            base = service.engine.base
        except Exception as error:  # what a request is told, too
            out.error(str(error))
            return
        out.note(f"Ready: {url} generates with {base} and its adapters; stop it with Ctrl-C.")
        if env_file is None:
            return
        facts = {"HUBLORA_SERVE_URL": url, KEY: key}
        lines = "".join(f"export {name}={shlex.quote(str(one))}\n" for name, one in facts.items())
        write_atomically(env_file.absolute(), lines.encode(), mode=0o600)

    threading.Thread(target=tell, daemon=True).start()
