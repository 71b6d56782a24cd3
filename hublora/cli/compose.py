"""`hublora compose`: combines adapters into a composition repo or one merged file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hublora.cli.early import check_adapters, check_push_name
from hublora.cli.options import pairs
from hublora.cli.output import out, output_flags, push_summary
from hublora.generation.outputs import check_destination

EXAMPLES = """
\b
Examples:
  hublora compose me/ink-lora:0.7 me/dog-lora:0.5 --push-to-hub me/mix
  hublora compose me/ink-lora me/dog-lora --push-to-hub me/mix --template "a {prompt}, by <1>"
  hublora compose me/ink-lora:0.7 ./dog.safetensors:0.5 --merge cat -o ink-dog
  hublora compose me/ink-lora me/dog-lora --merge ties --density 0.4 --rank 16 -o ink-dog
"""
_WITHOUT_DENSITY = ("cat", "svd")
MERGES = ["cat", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune", "linear"]


@click.command(epilog=EXAMPLES)
@click.argument("refs", nargs=-1, required=True, metavar="ADAPTER[:WEIGHT]... ")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--push-to-hub", "push_to", metavar="OWNER/NAME", help="Repo to push to.")
@click.option("--private", is_flag=True, help="Create the repo private.")
@click.option(
    "--merge",
    "method",
    type=click.Choice(MERGES),
    metavar="METHOD",
    help="Merge into one adapter: cat (exact), svd, ties, dare_linear, dare_ties, magnitude_prune.",
)
@click.option(
    "--rank",
    type=click.IntRange(1),
    help="Largest rank of the merged adapter; that of the largest adapter by default.",
)
@click.option(
    "--density",
    type=float,
    help="Fraction of the values that ties, dare and magnitude_prune retain; 0.5 by default.",
)
@click.option(
    "--compose",
    "mode",
    type=click.Choice(["sum", "switch", "composite"]),
    help="How they are combined, as for run; sum by default.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="ADAPTER=WEIGHT",
    callback=pairs,
    help="Weight schedule, as for run, e.g. 1=0.2..0.9.",
)
@click.option(
    "--template", help="Prompt template: {prompt} is the user's prompt, <1> the first adapter."
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help="Prompt of the gallery, by default those of the adapters' cards; may be repeated.",
)
@click.option("--no-gallery", is_flag=True, help="Generate no images for the card.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the gallery and of dare.",
)
@click.option(
    "--steps",
    "num_inference_steps",
    type=click.IntRange(1),
    help="Denoising steps; by default as for run.",
)
@click.option("--base", help="Hub id of the base model; by default the one that the adapters name.")
@click.option("--device", help="Torch device, e.g. cuda:1; a GPU by default if there is one.")
@output_flags
def compose(refs: tuple[str, ...], method: str | None, no_gallery: bool, **settings: Any) -> None:
    """Combine several adapters into one repo.

    Without --merge, a composition is written: it names every adapter at its commit with its weight
    and how they are combined, and `hublora run me/mix "…"` loads it like one adapter. With --merge,
    one adapter file is written, and its error against the exact weighted sum is printed.
    """
    from hublora.cli.progress import ProgressReport

    check_adapters(refs, settings["base"], weights=settings["weights"])
    check_destination(settings["output"], settings["push_to"])
    check_push_name(settings["push_to"])
    merging = {name: settings.pop(name) for name in ("rank", "density")}
    merging = {name: value for name, value in merging.items() if value is not None}
    _check_merging(method, merging)
    settings["gallery"] = not no_gallery
    with ProgressReport() as report:
        if method is None:
            from hublora.workflows.compose import compose as workflow

            done = workflow(refs, compose=settings.pop("mode"), callback=report, **settings)
        else:
            from hublora.workflows.merge import merge

            for name in ("mode", "template"):
                if settings.pop(name):
                    raise click.UsageError(
                        f"--{name.replace('mode', 'compose')} cannot be used with --merge."
                    )
            weights = settings.pop("weights")
            if weights:
                raise click.UsageError("With --merge, write weights into the refs: me/ink-lora:0.7")
            done = merge(refs, method=method, callback=report, **settings, **merging)
    pushed = done.pushed
    places = [str(done.folder)] if done.folder else []
    places += [f"{pushed.repo_id}@{pushed.commit}"] if pushed else []
    lines = [f"Wrote {done.folder}"] if done.folder else []
    lines += push_summary(pushed) if pushed else []
    data = {
        "folder": str(done.folder) if done.folder else None,
        "error": done.error,
        "repo": pushed.repo_id if pushed else None,
        "commit": pushed.commit if pushed else None,
        "url": pushed.url if pushed else None,
    }
    out.result("\n".join(lines), data, places)


def _check_merging(method: str | None, given: Mapping[str, Any]) -> None:
    """Raise UsageError for merge flags that have no effect."""
    for name in given:
        if method is None:
            raise click.UsageError(f"--{name} requires --merge. Add --merge ties.")
    if "density" in given and method in _WITHOUT_DENSITY:
        raise click.UsageError(
            f"--density has no effect with --merge {method}, which retains every value."
        )
