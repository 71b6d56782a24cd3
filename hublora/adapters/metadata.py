"""Facts about an adapter as keys of its file's `__metadata__`, both ways.

Keys: hublora's own, and those of https://github.com/Stability-AI/ModelSpec; kohya's are read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hublora.adapters.adapter import AdapterFacts
from hublora.families.speed import SpeedSettings, parse_speed
from hublora.quoting import one_line

MODELSPEC_VERSION = "1.0.1"
_READ = (
    *("hublora.base_model", "hublora.base_revision", "hublora.family", "hublora.trigger_words"),
    *("hublora.base_sha256", "hublora.base_components"),
    *("hublora.generation_base", "hublora.generation_revision", "hublora.speed"),
    *("modelspec.title", "modelspec.trigger_phrase", "modelspec.license", "ss_output_name"),
)


def metadata_of_facts(
    facts: AdapterFacts, more: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Return the metadata that states an adapter's facts; unknown ones have no key.

    Args:
        facts: Facts of the adapter.
        more: Further keys -> text; those without text are left out.
    """
    words = ", ".join(facts.trigger_words)
    found = {
        "hublora.base_model": facts.base_model,
        "hublora.base_revision": facts.base_revision,
        "hublora.base_sha256": facts.base_sha256,
        "hublora.base_components": facts.base_components,
        "hublora.generation_base": facts.generation_base,
        "hublora.generation_revision": facts.generation_revision,
        "hublora.family": facts.family,
        "hublora.speed": json.dumps(asdict(facts.speed)) if facts.speed else None,
        "hublora.trigger_words": words,
        "modelspec.title": facts.title,
        "modelspec.trigger_phrase": words,
        "modelspec.license": facts.license,
        **(more or {}),
    }
    return {key: value for key, value in found.items() if value}


def facts_of_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that a file's metadata states, as arguments of `AdapterFacts`; those that it
    does not state are missing."""
    # Anybody may have written the file: a value with line feeds must not look like other lines.
    metadata = {key: one_line(metadata[key]) for key in _READ if key in metadata}
    words = metadata.get("hublora.trigger_words") or metadata.get("modelspec.trigger_phrase") or ""
    found = {
        "base_model": metadata.get("hublora.base_model"),
        "base_revision": metadata.get("hublora.base_revision"),
        "base_sha256": metadata.get("hublora.base_sha256"),
        "base_components": metadata.get("hublora.base_components"),
        "generation_base": metadata.get("hublora.generation_base"),
        "generation_revision": metadata.get("hublora.generation_revision"),
        "family": metadata.get("hublora.family"),
        "speed": _speed(metadata.get("hublora.speed", "")),
        "license": metadata.get("modelspec.license"),
        "title": metadata.get("modelspec.title") or metadata.get("ss_output_name"),
        "trigger_words": tuple(word.strip() for word in words.split(",") if word.strip()),
    }
    return {key: value for key, value in found.items() if value}


def _speed(text: str) -> SpeedSettings | None:
    try:
        stated = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parse_speed(stated) if isinstance(stated, dict) else None
