"""`hublora inspect`: shows adapters from their headers and cards alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hublora.cli.output import out, output_flags
from hublora.quoting import one_line

if TYPE_CHECKING:
    from hublora.adapters.adapter import AdapterFacts
    from hublora.adapters.similarity import Overlap
    from hublora.workflows.inspect import InspectedAdapter, Preflight

EXAMPLES = """
\b
Examples:
  hublora inspect me/pokemon-lora
  hublora inspect me/pokemon-lora ./ink.safetensors --json
  hublora inspect me/pokemon-lora someone/ink-lora --base me/my-base
  hublora inspect me/pokemon-lora someone/ink-lora --overlap
"""

_MOST_NUMBERS = 6  # values that are listed one by one


@click.command(epilog=EXAMPLES)
@click.argument("refs", nargs=-1, required=True, metavar="ADAPTER...")
@click.option("--base", help="Base model to match the layers against: Hub id or folder.")
@click.option("--revision", "base_revision", help="Branch, tag or commit of --base.")
@click.option(
    "--components", help="Pipeline, as owner/name, with what a single file as --base lacks."
)
@click.option(
    "--overlap", is_flag=True, help="Compare their weight updates; downloads the weights."
)
@output_flags
def inspect(
    refs: tuple[str, ...],
    base: str | None,
    base_revision: str | None,
    components: str | None,
    overlap: bool,
) -> None:
    """Show the facts of each ADAPTER, how many layers match --base, and contradictions.

    Without --overlap no weights are downloaded: only the headers of files are read.
    """
    from hublora.workflows.inspect import measure_overlap, preflight

    found = preflight(*refs, base=base, base_revision=base_revision, components=components)
    sources = [one.facts.source or str(number) for number, one in enumerate(found.adapters, 1)]
    text, data = _describe(found), _as_data(found)
    if overlap:
        from hublora.cli.progress import ProgressReport

        with ProgressReport() as progress:
            measured = measure_overlap(
                *refs, base=base, base_revision=base_revision, callback=progress
            )
        text += "\n\n" + _describe_overlap(measured, [one.name for one in found.adapters])
        data["overlap"] = asdict(measured)
    out.result(text, data, sources)


def _describe_overlap(measured: Overlap, names: list[str]) -> str:
    lines = [click.style("Overlap", bold=True)]
    for pair in measured.pairs:
        lines.append(f"  {names[pair.first]} and {names[pair.second]}: {pair.cosine:+.3f}")
        lines += [f"    {block:<26} {cosine:+.3f}" for block, cosine in pair.blocks.items()]
    lines.append("  (1: the same update; 0: independent; below 0: they cancel each other)")
    suggestion = measured.suggestion
    weighted = zip(names, suggestion.weights, strict=True)
    refs = " ".join(ref if weight == 1 else f"{ref}:{weight:g}" for ref, weight in weighted)
    way = "" if suggestion.mode == "sum" else f" --compose {suggestion.mode}"
    lines += [f"  {suggestion.reason}", f'  Try: hublora run {refs} "…"{way}']
    return "\n".join(lines)


def _as_data(found: Preflight) -> dict[str, Any]:
    return {
        "adapters": [_adapter_data(one) for one in found.adapters],
        "base": None
        if found.base is None
        else {
            "name": found.base.name,
            "revision": found.base.commit,
            "family": found.base.family,
            "license": found.base.card.get("license"),
        },
        "conflicts": found.conflicts,
    }


def _adapter_data(one: InspectedAdapter) -> dict[str, Any]:
    fit = one.fit and {
        "layers": one.fit.total,
        "matched": len(one.fit.matched),
        "fraction": round(one.fit.fraction, 4),
        "missing": [".".join(name) for name in one.fit.missing],
        "wrong_shape": [".".join(name) for name in one.fit.wrong_shape],
    }
    return {**asdict(one.facts), "weight": one.weight, "fit": fit, "problems": one.problems}


def _describe(found: Preflight) -> str:
    blocks = [_describe_one(one, found) for one in found.adapters]
    if len(found.adapters) > 1:
        together = found.conflicts or ("No conflict found.",)
        blocks.append("\n".join([click.style("Together", bold=True), *_bullets(together)]))
    return "\n\n".join(blocks)


def _describe_one(one: InspectedAdapter, found: Preflight) -> str:
    facts = one.facts
    rows = {
        "weight": one.weight,
        "base": _base(facts.base_model, facts.base_revision),
        "used on": _base(facts.generation_base, facts.generation_revision)
        if facts.generation_base
        else None,
        "family": facts.family,
        "kind": ", ".join(facts.methods),
        "changes": _changes(facts),
        "brings": str(facts.speed) if facts.speed else None,
        "rank": _numbers(facts.ranks),
        "alpha": _numbers(facts.alphas),
        "trigger words": ", ".join(facts.trigger_words) or "none",
        "licence": facts.license or "unknown",
        "size": _size(facts),
        "layout": facts.layout,
        "fits": _fit(one, found),
    }
    lines = [click.style(one_line(str(facts.source)), bold=True)]
    lines += [f"  {name:<14} {one_line(value)}" for name, value in rows.items() if value]
    return "\n".join(lines + _bullets(one.problems))


def _numbers(values: Sequence[float]) -> str:
    if len(values) <= _MOST_NUMBERS:
        return ", ".join(f"{value:g}" for value in values)
    return f"{min(values):g} to {max(values):g} ({len(values)} different)"


def _changes(facts: AdapterFacts) -> str | None:
    if not facts.components:
        return None
    return f"{', '.join(facts.components)}: {', '.join(facts.targets)}"


def _base(name: str | None, commit: str | None) -> str:
    return f"{name}@{commit[:8]}" if name and commit else name or "unknown"


def _fit(one: InspectedAdapter, found: Preflight) -> str | None:
    if one.fit is None or found.base is None:
        return None
    return f"{len(one.fit.matched)} of {one.fit.total} layers of {found.base.label}"


def _bullets(sentences: tuple[str, ...]) -> list[str]:
    return [f"  - {sentence}" for sentence in sentences]


def _size(facts: AdapterFacts) -> str | None:
    if not facts.size:
        return None
    megabytes = facts.size / 1e6
    return f"{megabytes:.2f} MB ({facts.parameters:,} weights, {facts.dtype})"
