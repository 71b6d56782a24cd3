"""`hublora compose`: several adapters as one, in a repo or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hublora.cli.options import pairs
from hublora.cli.output import out, output_flags, told_of_push
from hublora.refs import parse_refs

EXAMPLES = """
\b
Examples:
  hublora compose me/ink-lora:0.7 me/dog-lora:0.5 --push-to-hub me/mix
  hublora compose me/ink-lora me/dog-lora --push-to-hub me/mix --template "a {prompt}, by <1>"
  hublora compose me/ink-lora:0.7 ./dog.safetensors:0.5 --merge cat -o ink-dog
  hublora compose me/ink-lora me/dog-lora --merge ties --density 0.4 --rank 16 -o ink-dog
"""
_KEEPING_ALL = ("cat", "svd")
MERGES = ["cat", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune", "linear"]


@click.command(epilog=EXAMPLES)
@click.argument("refs", nargs=-1, required=True, metavar="ADAPTER[:WEIGHT]... ")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A folder to write.")
@click.option("--push-to-hub", "push_to", metavar="OWNER/NAME", help="A repo to push to.")
@click.option("--private", is_flag=True, help="Create the repo private.")
@click.option(
    "--merge",
    "method",
    type=click.Choice(MERGES),
    metavar="WAY",
    help="Make one adapter: cat (exact), svd, ties, dare_linear, dare_ties or magnitude_prune.",
)
@click.option("--rank", type=click.IntRange(1), help="Largest rank of what is merged.")
@click.option(
    "--density", type=float, help="Share of values that ties, dare and magnitude_prune keep; 0.5."
)
@click.option(
    "--compose", "way", type=click.Choice(["sum", "switch", "composite"]), help="As for run."
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="ADAPTER=WEIGHT",
    callback=pairs,
    help="As for run, e.g. 1=0.2..0.9.",
)
@click.option("--template", help="Of prompts: {prompt} is what a person types, <1> an adapter.")
@click.option("--prompt", "prompts", multiple=True, help="Of the gallery; may be repeated.")
@click.option("--no-gallery", is_flag=True, help="Draw no images for the card.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the gallery, and of dare.")
@click.option("--steps", "num_inference_steps", type=click.IntRange(1), help="Denoising steps.")
@click.option("--base", help="Hub id of the base, if not the adapters' own.")
@click.option("--device", help="A torch device; a GPU if there is one.")
@output_flags
def compose(refs: tuple[str, ...], method: str | None, no_gallery: bool, **settings: Any) -> None:
    """Make one of several adapters.

    Without --merge, what is written is a composition: it names every adapter at its commit, with
    weights and the way they act, and `hublora run me/mix "…"` uses it as if it were one. With
    --merge, it is one adapter file; how far it is from the exact weighted sum is told.
    """
    from hublora.cli.progress import ProgressReport

    parse_refs(refs)  # a slip of the finger is told before anything heavy is imported
    merging = {name: settings.pop(name) for name in ("rank", "density")}
    merging = {name: value for name, value in merging.items() if value is not None}
    _check_merging(method, merging)
    settings["gallery"] = not no_gallery
    with ProgressReport() as report:
        if method is None:
            from hublora.workflows.compose import compose as workflow

            done = workflow(refs, callback=report, **settings)
        else:
            from hublora.workflows.merge import merge

            for name in ("way", "template"):
                if settings.pop(name):
                    raise click.UsageError(f"--merge and --{name.replace('way', 'compose')} differ")
            weights = settings.pop("weights")
            if weights:
                raise click.UsageError("With --merge, write weights into the refs: me/ink-lora:0.7")
            done = merge(refs, method=method, callback=report, **settings, **merging)
    pushed = done.pushed
    places = [str(done.folder)] if done.folder else []
    places += [f"{pushed.repo_id}@{pushed.commit}"] if pushed else []
    lines = [f"It is in {done.folder}"] if done.folder else []
    lines += told_of_push(pushed) if pushed else []
    data = {
        "folder": str(done.folder) if done.folder else None,
        "error": done.error,
        "repo": pushed.repo_id if pushed else None,
        "commit": pushed.commit if pushed else None,
        "url": pushed.url if pushed else None,
    }
    out.result("\n".join(lines), data, places)


def _check_merging(method: str | None, given: Mapping[str, Any]) -> None:
    """Refuse flags of merging that would mean nothing."""
    for name in given:
        if method is None:
            raise click.UsageError(
                f"--{name} is of --merge, which is not given: nothing is merged. Add --merge ties."
            )
    if "density" in given and method in _KEEPING_ALL:
        raise click.UsageError(f"--merge {method} keeps all values: leave --density out.")
