"""`hublora inspect`: what adapters are, from their headers and cards alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hublora.cli.output import out, output_flags

if TYPE_CHECKING:
    from hublora.adapters.adapter import AdapterFacts

EXAMPLES = """
\b
Examples:
  hublora inspect me/pokemon-lora
  hublora inspect me/pokemon-lora ./ink.safetensors --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("refs", nargs=-1, required=True, metavar="ADAPTER...")
@output_flags
def inspect(refs: tuple[str, ...]) -> None:
    """Show what each ADAPTER is; of its file only the header is read."""
    from hublora.workflows import inspect as workflow

    found = workflow(*refs)
    text = "\n\n".join(_describe(facts) for facts in found)
    out.result(text, [asdict(facts) for facts in found], [str(f.source) for f in found])


def _describe(facts: AdapterFacts) -> str:
    base = facts.base_model or "unknown"
    if facts.base_model and facts.base_revision:
        base += f"@{facts.base_revision[:8]}"
    rows = {
        "base": base,
        "family": facts.family,
        "changes": f"{', '.join(facts.components)}: {', '.join(facts.targets)}",
        "rank": ", ".join(str(rank) for rank in facts.ranks),
        "alpha": ", ".join(f"{alpha:g}" for alpha in facts.alphas),
        "trigger words": ", ".join(facts.trigger_words) or "none",
        "licence": facts.license or "unknown",
        "size": _size(facts),
        "layout": facts.layout,
    }
    lines = [click.style(str(facts.source), bold=True)]
    lines += [f"  {name:<14} {value}" for name, value in rows.items() if value]
    return "\n".join(lines)


def _size(facts: AdapterFacts) -> str | None:
    if not facts.size:
        return None
    megabytes = facts.size / 1e6
    return f"{megabytes:.2f} MB ({facts.parameters:,} weights, {facts.dtype})"
