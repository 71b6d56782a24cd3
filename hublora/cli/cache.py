"""`hublora cache`: lists and removes cached latents, prompt embeddings and downloads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from hublora.cli.options import WholeGroup
from hublora.cli.output import out, output_flags
from hublora.errors import ConfigError

if TYPE_CHECKING:
    from hublora.workflows.cache import CacheEntry

EXAMPLES = """
\b
Examples:
  hublora cache ls
  hublora cache rm --older-than 30
  hublora cache rm --kind latents
"""
_DAY = 86_400  # seconds


@click.group(cls=WholeGroup, epilog=EXAMPLES)
def cache() -> None:
    """List and remove what hublora cached: latents, prompt embeddings, downloads.

    The cache is in $HUBLORA_CACHE, ~/.cache/hublora by default. Datasets, bases and adapters from
    the Hub are in the cache of huggingface_hub: see `hf cache`.
    """


@cache.command(epilog="\b\nExamples:\n  hublora cache ls\n  hublora cache ls --json")
@output_flags
def ls() -> None:
    """List the entries of the cache, the largest first."""
    from hublora.cards.format import format_size
    from hublora.workflows.cache import list_cache

    entries = list_cache()
    noun = "entry" if len(entries) == 1 else "entries"
    total = f"{len(entries)} {noun}, {format_size(sum(entry.size for entry in entries))}"
    lines = [_line(entry) for entry in entries]
    data = [
        {
            "kind": entry.kind,
            "key": entry.key,
            "path": str(entry.path),
            "size": entry.size,
            "used": entry.used,
            "about": entry.about,
        }
        for entry in entries
    ]
    out.result("\n".join([*lines, total]), data, [str(entry.path) for entry in entries])


@cache.command(
    epilog="\b\nExamples:\n  hublora cache rm --older-than 30\n  hublora cache rm 3f2a91c0d4"
)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--kind", help="Only entries of this kind, as `hublora cache ls` prints it.")
@click.option(
    "--older-than", type=click.FloatRange(0), metavar="DAYS", help="Only entries not used since."
)
@click.option("--all", "everything", is_flag=True, help="Every entry.")
@output_flags
def rm(keys: tuple[str, ...], kind: str | None, older_than: float | None, everything: bool) -> None:
    """Remove entries of the cache, named by the beginning of their key or chosen by flags."""
    from hublora.cards.format import format_size
    from hublora.workflows.cache import KINDS, list_cache, remove_cached

    if not (keys or kind or older_than is not None or everything):
        raise click.UsageError("Name entries, or add --kind, --older-than or --all.")
    if kind is not None and kind not in KINDS:
        raise click.UsageError(f"Unknown kind {kind!r}; choose from {', '.join(KINDS)}.")
    entries = list_cache()
    for key in keys:
        if not any(entry.key.startswith(key) for entry in entries):
            raise ConfigError(f"The cache has no entry {key!r}.", "List them: hublora cache ls")
    chosen = [
        entry
        for entry in entries
        if (not keys or entry.key.startswith(keys))
        and kind in (None, entry.kind)
        and (older_than is None or time.time() - entry.used > older_than * _DAY)
    ]
    freed = remove_cached(chosen)
    noun = "entry" if len(chosen) == 1 else "entries"
    text = f"Removed {len(chosen):,} {noun}, {format_size(freed)}."
    removed = [str(entry.path) for entry in chosen]
    out.result(text, {"removed": removed, "bytes": freed}, removed)


def _line(entry: CacheEntry) -> str:
    from hublora.cards.format import format_size

    day = time.strftime("%Y-%m-%d", time.localtime(entry.used))
    return f"{entry.kind:<14} {entry.key[:16]:<16} {format_size(entry.size):>8}  {day}"
