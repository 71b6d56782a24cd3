"""`hublora search`: finds adapters on the Hub."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hublora.cli.output import out, output_flags

if TYPE_CHECKING:
    from hublora.hub.search import FoundAdapter

EXAMPLES = """
\b
Examples:
  hublora search "pixel art" --base sdxl --sort downloads
  hublora search --base stable-diffusion-v1-5/stable-diffusion-v1-5 --limit 50 --json
  hublora search --author me -q
"""
_HEAD = ("adapter", "trigger", "licence", "downloads", "likes", "base")
_WIDEST = 40  # of a column


@click.command(epilog=EXAMPLES)
@click.argument("text", default="")
@click.option("--base", help="Hub id of the base, or a short name: sd15, sdxl, flux, z-image, …")
@click.option("--author", help="User or organisation.")
@click.option(
    "--sort",
    type=click.Choice(["downloads", "likes", "trending", "created", "updated"]),
    default="downloads",
    show_default=True,
    help="Sort order, descending.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Largest number of results.",
)
@output_flags
def search(text: str, base: str | None, author: str | None, sort: str, limit: int) -> None:
    """List adapters on the Hub whose name contains TEXT, with trigger words and licence."""
    from hublora.hub.search import search as find

    found = find(text, base=base, author=author, sort=sort, limit=limit)
    data = [asdict(one) for one in found]
    out.result(_table(found) if found else "No adapter found.", data, [o.repo_id for o in found])


def _table(found: list[FoundAdapter]) -> str:
    rows = [_HEAD, *(_row(one) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _row(one: FoundAdapter) -> tuple[str, ...]:
    license = one.license or "unknown"
    texts = (one.trigger, license, f"{one.downloads:,}", f"{one.likes:,}", one.base or "unknown")
    return one.repo_id, *(_short(text) for text in texts)


def _short(text: str) -> str:
    """Return text of a card on one line, without control characters, cut to the column."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= _WIDEST else plain[: _WIDEST - 1] + "…"
