"""`hublora verify`: checks a repo against what it states, and reproduces its training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hublora.cli.early import check_base, check_repo
from hublora.cli.output import out, output_flags
from hublora.errors import VerificationError

if TYPE_CHECKING:
    from hublora.workflows.reproduce import Reproduced
    from hublora.workflows.verify import VerificationReport

EXAMPLES = """
\b
Examples:
  hublora verify someone/naruto-lora
  hublora verify someone/naruto-lora --reproduce
  hublora verify me/dog-lora --reproduce --set data.folder=./dogs
"""
_MARKS = {True: "ok", False: "WRONG", None: "-"}


@click.command(epilog=EXAMPLES)
@click.argument("ref", metavar="ADAPTER")
@click.option(
    "--reproduce", is_flag=True, help="Train it again with the recorded settings, and compare."
)
@click.option("--base", help="Hub id or folder of the base, if the adapter does not name it.")
@click.option(
    "--components", help="Pipeline, as owner/name, with what a single file as base lacks."
)
@click.option("--device", help="Torch device to generate on; a GPU by default if there is one.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the training in place of the recorded one; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the second training; a temporary one by default.",
)
@output_flags
def verify(
    ref: str,
    reproduce: bool,
    base: str | None,
    components: str | None,
    device: str | None,
    assignments: tuple[str, ...],
    output: Path | None,
) -> None:
    """Check that ADAPTER, a repo or a run folder, contains what it states.

    Checks that every file that the card names exists, that the files are the ones that were pushed,
    that card, adapter and settings agree, and that the adapter generates its gallery again. With
    --reproduce it is also trained again with the recorded settings: the same CPU and versions give
    the same bytes; elsewhere both adapters are compared, and what drifted is named. The exit status
    is 1 if a check fails.
    """
    from hublora.cli.progress import ProgressReport

    check_repo(ref)
    check_base(base)
    given = _given({"base.model": base, "base.components": components}, assignments)
    if reproduce:
        _check_recipe(ref, given)
    with ProgressReport() as report:
        from hublora.workflows.verify import verify as workflow

        found = workflow(ref, base=base, components=components, device=device, callback=report)
    again = None
    if reproduce:
        again = _reproduce(ref, given, output)
    lines = [found.label, *(_line(found)), *(_again(again) if again else ())]
    data = asdict(found) | {"passed": found.passed}
    if again is not None:
        data["reproduced"] = asdict(again) | {"holds": again.is_reproduced}
    out.result("\n".join(lines), data, [found.label])
    _fail(found, again)


def _given(flags: dict[str, Any], assignments: tuple[str, ...]) -> dict[str, Any]:
    from hublora.cli.train_flags import given_settings

    return given_settings(None, assignments, flags)


def _check_recipe(ref: str, given: dict[str, Any]) -> None:
    """Raise before any work if the recorded settings cannot be trained again."""
    from hublora.data.source import check_there
    from hublora.training.config.training_config import TrainingConfig
    from hublora.workflows.train.recipe import read_recipe, remake

    check_there(TrainingConfig.from_settings(remake(read_recipe(ref), given)).data)


def _reproduce(ref: str, given: dict[str, Any], output: Path | None) -> Reproduced:
    from hublora.cli.progress import ProgressReport

    with ProgressReport() as report:
        from hublora.workflows.reproduce import reproduce

        return reproduce(ref, given=given, output=output, callback=report)


def _line(found: VerificationReport) -> list[str]:
    wide = max(len(check.name) for check in found.checks)
    return [
        f"  {_MARKS[check.passed]:<5}  {check.name:<{wide}}  {check.detail}"
        for check in found.checks
    ]


def _again(again: Reproduced) -> list[str]:
    """Return the report of a reproduction, one line an item."""
    drifted = [f"  {sentence}" for sentence in again.drift]
    since = ["Changed since the training:", *drifted] if drifted else []
    if again.same_bytes:
        return [*since, "Trained again: the same bytes."]
    told = f"cosine of the updates {again.similarity.cosine:.4f}, "
    told += f"difference {again.similarity.difference:.1%} of the length"
    if again.images is not None:
        told += f", images {again.images:.1f} of 255 levels apart"
    verdict = "alike" if again.is_reproduced else "another adapter"
    lines = [*since, f"Trained again: {verdict} ({told})."]
    if again.exact:
        lines.append("Nothing drifted, so the bytes should be the same.")
    if again.folder is not None:
        lines.append(f"It is in {again.folder}")
    return lines


def _fail(found: VerificationReport, again: Reproduced | None) -> None:
    """Raise VerificationError if a check failed or the adapter was not reproduced."""
    wrong = [check.name for check in found.checks if check.passed is False]
    if wrong:
        raise VerificationError(f"{found.label} fails verification: {', '.join(wrong)}.")
    if again is not None and not again.is_reproduced:
        raise VerificationError(f"{again.label} was not reproduced by its recorded settings.")
